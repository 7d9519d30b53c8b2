"""Fingerprints of a live model and of its calls."""

import functools
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smoothcache_core.calls.call import Call
from smoothcache_core.schedule.fingerprint import Fingerprint

_PROJECTIONS = 8  # parameters looked at: enough to tell models apart, spread over the depth
_ENTRIES = 4096  # entries of each: reading them takes no time, also from an accelerator
_PACKAGES = ("torch", "diffusers", "stable-audio-tools", "smoothcache-core")


def model_fingerprint(model: nn.Module, adapter: str) -> Fingerprint:
    """Return what can be said of a denoiser before it is called."""
    return Fingerprint(
        model_class=type(model).__name__,
        config_hash=_config_hash(model),
        weights=weight_projections(model),
        adapter=adapter,
        versions=_versions(),
    )


def weight_projections(model: nn.Module) -> dict[str, float] | None:
    """Return projections of a few parameters by name, which tell models of one configuration apart.

    Each is the sum of a parameter's first entries with pseudo-random signs, over their norm: of
    standard deviation 1 for unrelated weights, and hardly changed by another data type. Parameters
    that are not plain floating tensors with memory of their own (quantised, sharded, offloaded)
    are left out.

    Returns:
        None if there is no parameter to look at.
    """
    known = [(name, p) for name, p in model.named_parameters() if _can_be_read(p)]
    stride = max(len(known) // _PROJECTIONS, 1)
    found: dict[str, float] = {}
    for name, parameter in known[::stride][:_PROJECTIONS]:
        entries = parameter.detach().flatten()[:_ENTRIES].cpu().double()
        norm = float(entries.norm())
        if 0.0 < norm < math.inf:
            value = float(entries @ _signs()[: len(entries)]) / norm
            found[name.replace("_orig_mod.", "")] = round(value, 4)
    return found or None


def _can_be_read(parameter: nn.Parameter) -> bool:
    plain = type(parameter.data) is Tensor and parameter.is_floating_point()
    return plain and parameter.ndim > 1 and not parameter.is_meta


@functools.cache
def _signs() -> Tensor:
    """Return pseudo-random signs, (_ENTRIES,): bits of a linear congruential generator.

    Its constants are those of Numerical Recipes; torch's own generators may change.
    """
    number, signs = 1, []
    for _ in range(_ENTRIES):
        number = (1664525 * number + 1013904223) % 2**32
        signs.append(1.0 if number >> 31 else -1.0)
    return torch.tensor(signs, dtype=torch.float64)


def call_fingerprint(call: Call) -> Fingerprint:
    """Return what can be said of one call of a denoiser."""
    guidance = call.guidance or None
    if not call.layout:
        return Fingerprint(guidance=guidance)
    shape, dtype, _ = call.layout[0]
    sample = shape if len(call.layout) > 1 else shape[1:]
    return Fingerprint(latent_shape=sample, dtype=dtype, guidance=guidance)


def solver_name(scheduler: object) -> str:
    """Return the class name of a scheduler and the settings that tell solvers apart."""
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    known = (
        "algorithm_type",
        "solver_order",
        "timestep_spacing",
        "use_karras_sigmas",
        "prediction_type",
    )
    settings = [f"{name}={config[name]}" for name in known if name in config]
    return f"{type(scheduler).__name__}({', '.join(settings)})"


def _config_hash(model: nn.Module) -> str:
    """Return a hash of a model's configuration, or of its parameters' shapes if it has none."""
    config = getattr(model, "config", None)
    if isinstance(config, Mapping):
        known = {k: v for k, v in config.items() if not str(k).startswith("_")}
        return _digest(json.dumps(known, sort_keys=True, default=str))
    shapes = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    return _digest(repr(shapes))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: version for name in _PACKAGES if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
