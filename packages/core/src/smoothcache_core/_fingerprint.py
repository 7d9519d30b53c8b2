"""The fingerprint: what a calibration was measured on, and whether something else is the same."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from smoothcache_core._calls import Call

_PACKAGES = ("torch", "diffusers", "stable-audio-tools", "smoothcache-core")


class Fingerprint(BaseModel):
    """What was measured. Fields that are not known are None and are not compared.

    Attributes:
        model_class: Class name of the denoiser.
        config_hash: Hash of its configuration, or of its parameter names and shapes.
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
            self, other, ("solver", "branches", "latent_shape", "dtype", "guidance")
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
    return "" if here == there else f"{field} is {there!r}, not {here!r}"


def model_fingerprint(model: nn.Module, adapter: str) -> Fingerprint:
    """Return what can be said of a denoiser before it is called."""
    return Fingerprint(
        model_class=type(model).__name__,
        config_hash=_config_hash(model),
        adapter=adapter,
        versions=_versions(),
    )


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
