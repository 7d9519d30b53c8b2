"""What a denoiser's `forward` takes, and which of it is the latent and which the timestep."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.sites import Guidance, Names
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

WHOLE = "whole-evaluations"
"""Name of the adapter of a denoiser of which no sites are known."""


LATENTS = (
    "hidden_states",  # diffusers' transformers
    "sample",  # diffusers' UNets
    "x",  # facebook DiT, SiT, Open-Sora, Wan, CompVis, EDM, k-diffusion, stable-audio-tools
    "latents",
    "latent",
    "noisy_latents",
    "noisy_latent",
    "x_t",
    "xt",
    "z_t",
    "zt",
    "z",
    "img",  # Flux and Open-Sora 2 by their authors
    "noisy_images",
    "noisy_image",
)
"""Names that denoisers give their noisy latent, of which the first that `forward` has is taken."""


FURTHER = {"hidden_states": ("audio_hidden_states",)}
"""Names of further latents that denoisers take beside one, and give an output for: LTX-2 denoises a
video and its sound at once."""


TIMESTEPS = (
    "timestep",  # diffusers
    "timesteps",  # CompVis, HiDream, Flux by its authors
    "t",  # facebook DiT, SiT, Wan, stable-audio-tools
    "sigma",  # k-diffusion, EDM 2
    "sigmas",
    "time",
    "times",
    "timestep_ratio",  # Stable Cascade
    "noise_labels",  # EDM
    "noise_level",
    "noise_levels",
    "log_snr",
)
"""Names that denoisers give their timestep or noise level, taken alike."""


def argument_names(model: nn.Module) -> list[str]:
    """Return the names of what can be given to a denoiser's `forward`, in their order.

    A `forward` that passes on whatever it is given (that of DDP, of FSDP, of PEFT) is read by the
    one module inside. A module that stands for a function says itself what that takes, by a
    `__signature__`, as any callable of Python may.

    Args:
        model: The denoiser, not its compiled wrapper.

    Returns:
        The names without `self`, `*args` and `**kwargs`.
    """
    parameters = list(_parameters(model).values())
    names = [each.name for each in parameters if each.kind not in _ANY]
    inside = list(model.children())
    passes_on = not names and len(parameters) == len(_ANY) and len(inside) == 1
    return argument_names(inside[0]) if passes_on else names


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    own = vars(model).get("__signature__")
    if isinstance(own, inspect.Signature):
        return own.parameters
    try:
        known = inspect.signature(type(model).forward).parameters
    except (AttributeError, TypeError, ValueError):  # TorchScript's is found on instances only
        return inspect.signature(model.forward).parameters
    chosen = vars(model).get("forward")
    if chosen is not None and all(each.kind in _ANY for each in list(known.values())[1:]):
        return inspect.signature(chosen).parameters  # the class of Open-Sora 2.0 has none itself
    return {name: known[name] for name in list(known)[1:]}


def latent_and_timestep(
    model: nn.Module, *, latent: str | None = None, timestep: str | None = None
) -> tuple[str, str]:
    """Return the names of a denoiser's arguments that hold the noisy latent and the timestep.

    They are found among the arguments of its `forward` by the names that diffusers, k-diffusion and
    the code of published models give them.

    Example:
        >>> latent_and_timestep(model)
        ('hidden_states', 'timestep')

    Args:
        model: The denoiser, compiled or not.
        latent: Name of the latent, if it is known.
        timestep: Name of the timestep, if it is known.

    Raises:
        AdapterError: No argument has a usual name, or none has the name that was given.
    """
    inside = denoiser(model)
    names = argument_names(inside)
    _refuse_unknown(inside, names, latent=latent, timestep=timestep)
    latent = latent or next((name for name in LATENTS if name in names), None)
    timestep = timestep or next((name for name in TIMESTEPS if name in names), None)
    if latent is None or timestep is None:
        lacking = {"noisy latent (`latent=`)": latent, "timestep (`timestep=`)": timestep}
        raise AdapterError(
            f"{_taken(inside, names)}, and none of their names is usual for the "
            f"{' or the '.join(what for what, name in lacking.items() if name is None)}; name them "
            "in the adapter, such as whole_evaluations(model, latent='x', timestep='sigma')"
        )
    return latent, timestep


def all_latents(model: nn.Module, latent: str) -> Names:
    """Return the names of all latents that a denoiser takes, or the one that there is.

    Args:
        model: The denoiser, compiled or not.
        latent: Name of its latent.
    """
    names = argument_names(denoiser(model))
    further = tuple(name for name in FURTHER.get(latent, ()) if name in names)
    return (latent, *further) if further else latent


def _refuse_unknown(model: nn.Module, names: Sequence[str], **given: str | None) -> None:
    unknown = {what: name for what, name in given.items() if name and name not in names}
    if unknown:
        said = " and ".join(f"{what}={name!r}" for what, name in unknown.items())
        raise AdapterError(f"{_taken(model, names)}, so {said} is none of them")


def _taken(model: nn.Module, names: Sequence[str]) -> str:
    takes = list(names) or "nothing by name, only *args and **kwargs"
    return f"{type(model).__name__}.forward takes {takes}"


def whole_evaluations(
    model: nn.Module,
    *,
    latent: str | None = None,
    timestep: str | None = None,
    guidance: Guidance | None = None,
) -> PatternAdapter:
    """Return an adapter for a denoiser of which nothing is known but how it is called.

    It finds no sites, so whole evaluations are what is planned and skipped. That is no makeshift:
    for many models it is what `plan` chooses anyway, and nothing inside the model is touched. What
    was found is logged as information.

    Example:
        >>> adapter = whole_evaluations(model)
        >>> adapter.sites(model), adapter.latent, adapter.timestep
        ((), 'hidden_states', 'timestep')

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        latent: Name of the argument that holds the noisy latent; found if not given.
        timestep: Name of the argument that holds the timestep or noise level; found if not given.
        guidance: Which half of the batch is conditional, where guidance is batched; without it
            unconditional passes alone are no target.

    Raises:
        AdapterError: The names cannot be found, or the denoiser takes no such argument.
    """
    first, timestep = latent_and_timestep(model, latent=latent, timestep=timestep)
    latents = all_latents(model, first) if latent is None else latent
    logger.info(
        "%s: whole evaluations can be skipped; its latent is %r, its timestep %r",
        type(denoiser(model)).__name__,
        latents,
        timestep,
    )
    return PatternAdapter(
        name=WHOLE, patterns=(), latent=latents, timestep=timestep, guidance=guidance
    )
