"""Denoisers that take turns in one run, as one model.

Some pipelines hand over from one denoiser to another on the way: Wan 2.2 denoises by
`transformer` down to a boundary, and by `transformer_2` from there on. What a run is does not
change by that: one clock, one calibration, one schedule.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from smoothcache_core.errors import SamplerError


class Relay(nn.Module):
    """Denoisers of one family that take turns in one run; taken wherever a model is.

    It is not called itself: the pipeline goes on calling the denoisers, and each of their calls is
    one of the run. A site of all of them, by its path, is one site with one row. Where another
    denoiser takes over, sites compute, while whole evaluations are filled across as it was
    measured. A denoiser that is not called is not touched.

    Example:
        >>> import copy
        >>> import torch
        >>> relay = Relay(model, copy.deepcopy(model))
        >>> def run_in_turns(seed: int) -> torch.Tensor:
        ...     latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        ...     for step in range(8):
        ...         latent = latent - relay.members[step > 3](latent, 1 - step / 8) / 8
        ...     return latent
        >>> both = Sampler(model=relay, adapter=adapter, run=run_in_turns, samples=2)
        >>> calibrate(both, seeds=range(2), progress=False).fingerprint.denoisers
        (0, 0, 0, 0, 1, 1, 1, 1)

    Args:
        members: The denoisers, compiled or not, in the order of their turns.

    Attributes:
        members: The denoisers, in the order of their turns.

    Raises:
        SamplerError: They are fewer than two, one of them occurs twice, or is no module.
    """

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        _check(members)
        self.members = nn.ModuleList(members)
        first: nn.Module = getattr(members[0], "_orig_mod", members[0])
        said = vars(first).get("__signature__")  # of a function that stands for a denoiser
        self.__signature__ = said or inspect.signature(first.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to be called; nobody knows whose turn it is.

        Raises:
            SamplerError: Always.
        """
        raise SamplerError("a Relay is not called itself; call the denoiser whose turn it is")


def members_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the denoisers that take turns in a run; the model itself where there is one.

    Args:
        model: A denoiser, or a `Relay`.
    """
    return tuple(model.members) if isinstance(model, Relay) else (model,)


def _check(members: Sequence[object]) -> None:
    strange = [type(each).__name__ for each in members if not isinstance(each, nn.Module)]
    if strange or len(members) < 2:
        given = f"a {strange[0]}" if strange else f"{len(members)} of them"
        raise SamplerError(f"a Relay takes two denoisers or more, torch.nn.Modules, not {given}")
    if len({id(each) for each in members}) < len(members):
        raise SamplerError("a Relay takes different denoisers, but one of these occurs twice")
