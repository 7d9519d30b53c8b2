"""Fingerprints of a live model and of its calls."""

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.call import Call, largest
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.function import FunctionDenoiser
from smoothcache_core.calls.solvers import solver_name, solver_settings
from smoothcache_core.calls.weights import own_parameters, weight_projections, whole_shape
from smoothcache_core.relay import members_of, takes_turns
from smoothcache_core.schedule.adapter_data import AdapterData
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Setting

_PACKAGES = ("torch", "diffusers", "stable-audio-tools", "smoothcache-core")

_STORAGE = ("quantization_config", "torch_dtype", "dtype")
"""What a configuration says of how weights are stored, not of what model it is."""


def model_fingerprint(model: nn.Module, adapter: str) -> Fingerprint:
    """Return what can be said of a denoiser, or a `Relay` of some, before it is called."""
    model = denoiser(model)
    if isinstance(model, FunctionDenoiser) and model.like is not None:
        return model_fingerprint(model.like, adapter)
    weights = weight_projections(model if takes_turns(model) else members_of(model)[0])
    members = [denoiser(member) for member in members_of(model)]
    return Fingerprint(
        model_class=" + ".join(map(model_class, members)),
        config_hash=_joint([_config_hash(member) for member in members]),
        weights=weights.values or None,
        weights_rounding=weights.rounding or None,
        adapter=adapter,
        versions=_versions(),
    )


def live_fingerprint(
    model: nn.Module,
    adapter: Adapter,
    branches: tuple[str, ...],
    scheduler: Scheduler | None,
    solver: str | None,
) -> Fingerprint:
    """Return what is known of a live model and its runs before it is called.

    Args:
        model: The denoiser, not its compiled wrapper, or a `Relay`.
        adapter: What is known about its family.
        branches: Names of the conditioning passes, if they are calls of their own.
        scheduler: The scheduler, if there is one.
        solver: Name of the solver; that of `scheduler` if not given.
    """
    settings = None if scheduler is None else solver_settings(scheduler)
    named = None if scheduler is None else solver_name(scheduler)
    return model_fingerprint(model, adapter.name).changed(
        adapter_data=AdapterData.of_adapter(adapter),
        solver=solver or named,
        solver_settings=settings,
        branches=branches,
    )


def model_class(model: nn.Module) -> str:
    """Return the name of the class that a denoiser's family has.

    Libraries give a model a subclass made for it, as FSDP does. No module holds that, and its
    `forward` is that of the family.

    Args:
        model: The denoiser, not its compiled wrapper.
    """
    if isinstance(model, FunctionDenoiser):
        return model.name
    classes = [kind for kind in type(model).__mro__ if issubclass(kind, nn.Module)]
    return next(filter(_is_of_family, classes), classes[0]).__name__


def _is_of_family(kind: type) -> bool:
    held = getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind
    return held or "forward" in vars(kind)


def call_fingerprint(call: Call) -> Fingerprint:
    """Return what can be said of one call of a denoiser."""
    guidance = call.guidance or None
    if not call.layout:
        return Fingerprint(guidance=guidance)
    shape, dtype, _ = call.layout[0]
    sample = shape if len(call.layout) > 1 else shape[1:]
    return Fingerprint(latent_shape=sample, dtype=dtype, guidance=guidance)


def run_fingerprint(
    before: Fingerprint,
    first: Call,
    *,
    timesteps: Sequence[float | Tensor | None],
    branches: Sequence[str],
    steps: Mapping[str, Setting] | None,
    denoisers: Sequence[int] = (),
) -> Fingerprint:
    """Return what can be said of a run when it is over.

    Args:
        before: What is known before it begins.
        first: Its first call.
        timesteps: The timestep of every evaluation, on a device maybe; None where it has none.
        branches: Names of the conditioning passes that are calls of their own.
        steps: What the steps of its solver are called with; None if that is not known.
        denoisers: Which of the denoisers that take turns made each evaluation; empty where there
            is one.
    """
    known = tuple(float(timestep) for timestep in timesteps if timestep is not None)
    update = call_fingerprint(first).model_dump(exclude_none=True, exclude={"versions"})
    update |= {"evaluations": len(timesteps), "branches": tuple(branches)}
    update |= {"timesteps": known if len(known) == len(timesteps) else None}
    update |= {"denoisers": tuple(denoisers) or None}
    if steps:
        update["solver_settings"] = {**(before.solver_settings or {}), **steps}
    return before.changed(**update)


def timestep_of(call: Call) -> float | Tensor | None:
    """Return the timestep of a call, as a copy where it is on a device."""
    if call.timestep is not None or call.tensor is None or not call.tensor.numel():
        return call.timestep
    return largest(call.tensor)


def _config_hash(model: nn.Module) -> str:
    """Return a hash of a model's configuration, or of its parameters' shapes if it has none."""
    config = getattr(model, "config", None)
    if isinstance(config, Mapping):
        known = {k: v for k, v in config.items() if not str(k).startswith("_")}
        known = {k: v for k, v in known.items() if k not in _STORAGE}
        return _digest(json.dumps(known, sort_keys=True, default=str))
    shapes = [(name, whole_shape(each)) for name, each in own_parameters(model)]
    return _digest(repr(shapes))


def _joint(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else _digest(repr(hashes))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: version for name in _PACKAGES if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
