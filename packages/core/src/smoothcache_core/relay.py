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
        members: The denoisers, compiled or not, in the order of their turns; one will do where
            there is something beside it.
        beside: Modules that the sampler calls for the sake of the denoiser, before it in every
            evaluation, and whose outputs it hands on as they are: a ControlNet. Where an
            evaluation is skipped they are too, and their work counts as the denoiser's.

    Attributes:
        members: The denoisers, in the order of their turns.
        beside: What is called for their sake.

    Raises:
        SamplerError: They are fewer than two and alone, one of them occurs twice, or is no module.
    """

    def __init__(self, *members: nn.Module, beside: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        _check(members, beside)
        self.members = nn.ModuleList(members)
        self.beside = nn.ModuleList(beside)
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


def beside_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return what is called for the sake of a denoiser, before it; mostly nothing.

    Args:
        model: A denoiser, or a `Relay`.
    """
    return tuple(model.beside) if isinstance(model, Relay) else ()


def takes_turns(model: nn.Module) -> bool:
    """Return whether a model is several denoisers that take turns.

    Args:
        model: A denoiser, or a `Relay`.
    """
    return len(members_of(model)) > 1


def _check(members: Sequence[object], beside: Sequence[object]) -> None:
    given = (*members, *beside)
    strange = [type(each).__name__ for each in given if not isinstance(each, nn.Module)]
    if strange or not members or len(given) < 2:
        found = f"a {strange[0]}" if strange else f"{len(members)} of them"
        raise SamplerError(f"a Relay takes two denoisers or more, torch.nn.Modules, not {found}")
    if len({id(each) for each in given}) < len(given):
        raise SamplerError("a Relay takes different modules, but one of these occurs twice")
