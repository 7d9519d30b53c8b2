"""The module inside the wrapper of `torch.compile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def denoiser(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`'s wrapper, or `model` itself."""
    return getattr(model, "_orig_mod", model)


def is_compiled(model: nn.Module) -> bool:
    """Return whether `model` or any of its submodules was compiled."""
    return any(
        denoiser(module) is not module or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
