"""Finding the adapter of a model among those of a package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn


def find_adapter(model: nn.Module, adapters: Iterable[PatternAdapter]) -> PatternAdapter:
    """Return the adapter of a denoiser, found by the name of its class or of a base class.

    Example:
        >>> find_adapter(model, [adapter]).name
        'toy'

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        adapters: Where to look, such as `smoothcache_image.ADAPTERS`; of two that name a class, the
            later one.

    Raises:
        AdapterError: No adapter is meant for a class of this name.
    """
    by_class = _by_class(adapters)
    found = known_adapter(model, by_class.values())
    if found is None:
        raise AdapterError(
            f"no adapter for {type(denoiser(model)).__name__!r}; the known classes are "
            f"{sorted(by_class)}. Give the denoiser that the sampler calls (`pipe.transformer`); "
            "say where its sites are, PatternAdapter(name='my-dit', patterns=(SitePattern("
            "'blocks.*.attn', 'attn'),)); or let structure_of(model, run) find them"
        )
    return found


def known_adapter(model: nn.Module, adapters: Iterable[PatternAdapter]) -> PatternAdapter | None:
    """Return the adapter of a denoiser, found as by `find_adapter`; None if there is none.

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        adapters: Where to look; of two that name a class, the later one.
    """
    by_class = _by_class(adapters)
    bases = (base.__name__ for base in type(denoiser(model)).__mro__)
    return next((by_class[name] for name in bases if name in by_class), None)


def _by_class(adapters: Iterable[PatternAdapter]) -> dict[str, PatternAdapter]:
    return {name: adapter for adapter in adapters for name in adapter.classes}
