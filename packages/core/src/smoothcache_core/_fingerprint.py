"""The fingerprint: what a calibration was measured on, and whether something else is the same."""

import functools
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from smoothcache_core._calls import Call

_PROJECTIONS = 8
_ENTRIES = 4096
_APART = 0.05
"""How far projections may differ for one model: between data types, or after a little tuning."""
_PACKAGES = ("torch", "diffusers", "stable-audio-tools", "smoothcache-core")


class Fingerprint(BaseModel):
    """What was measured. Fields that are not known are None and are not compared.

    Attributes:
        model_class: Class name of the denoiser.
        config_hash: Hash of its configuration, or of its parameter names and shapes.
        weights: Projections of a few of its parameters by their names, see `weight_projections`.
        adapter: Name of the adapter.
        solver: Name of the solver, with the settings that change its evaluations.
        evaluations: Denoiser evaluations of one run, per branch.
        timesteps: The timesteps of the evaluations, where the host knew them.
        branches: Names of the conditioning passes evaluated by calls of their own.
        latent_shape: Shape of the latent without its batch dimension.
        dtype: Data type of the latent, for example `"float16"`.
        guidance: Strengths of guidance by the names that pipelines or denoisers give them.
        versions: Versions of the packages that matter.
        transferred_from: Evaluations of the runs that were measured, if it was carried over to
            other ones, see `transfer`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_class: str | None = None
    config_hash: str | None = None
    weights: Mapping[str, float] | None = None
    adapter: str | None = None
    solver: str | None = None
    evaluations: int | None = None
    timesteps: tuple[float, ...] | None = None
    branches: tuple[str, ...] | None = None
    latent_shape: tuple[int, ...] | None = None
    dtype: str | None = None
    guidance: Mapping[str, float] | None = None
    versions: Mapping[str, str] = {}
    transferred_from: int | None = None

    def conflicts(self, other: "Fingerprint") -> list[str]:
        """Return why something with fingerprint `other` must be refused; empty if it fits."""
        return _differences(self, other, ("model_class", "config_hash", "adapter", "evaluations"))

    def remarks(self, other: "Fingerprint") -> list[str]:
        """Return what differs in `other` without making it wrong."""
        return _differences(
            self, other, ("weights", "solver", "branches", "latent_shape", "dtype", "guidance")
        )

    def mismatches(self, other: "Fingerprint") -> list[str]:
        """Return how `other` is not the same, unknown fields included and versions left out."""
        names = [name for name in type(self).model_fields if name not in ("versions", "timesteps")]
        reasons = [_difference(self, other, name) for name in names]
        timesteps = [] if self.timesteps == other.timesteps else ["the timesteps differ"]
        return [reason for reason in reasons if reason] + timesteps


def _differences(one: Fingerprint, other: Fingerprint, fields: Iterable[str]) -> list[str]:
    known = [f for f in fields if None not in (getattr(one, f), getattr(other, f))]
    return [reason for field in known if (reason := _difference(one, other, field))]


def _difference(one: Fingerprint, other: Fingerprint, field: str) -> str:
    here, there = getattr(one, field), getattr(other, field)
    if field == "weights":
        return _weights_difference(here or {}, there or {})
    return "" if here == there else f"{field} is {there!r}, not {here!r}"


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
    """Return pseudo-random signs, (_ENTRIES,): bits of a linear congruential generator."""
    number, signs = 1, []
    for _ in range(_ENTRIES):
        number = (1664525 * number + 1013904223) % 2**32
        signs.append(1.0 if number >> 31 else -1.0)
    return torch.tensor(signs, dtype=torch.float64)


def _weights_difference(one: Mapping[str, float], other: Mapping[str, float]) -> str:
    common = one.keys() & other.keys()
    if all(abs(one[name] - other[name]) <= _APART for name in common):
        return ""
    return "the weights are those of another model"


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
    told = (
        "algorithm_type",
        "solver_order",
        "timestep_spacing",
        "use_karras_sigmas",
        "prediction_type",
    )
    settings = [f"{name}={config[name]}" for name in told if name in config]
    return f"{type(scheduler).__name__}({', '.join(settings)})"


def _config_hash(model: nn.Module) -> str:
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
