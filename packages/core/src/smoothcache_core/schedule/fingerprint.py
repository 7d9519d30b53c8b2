"""The fingerprint: what a calibration was measured on, and whether something else is the same."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    InstanceOf,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.errors import AdapterError
from smoothcache_core.schedule.adapter_data import AdapterData
from smoothcache_core.schedule.provenance import Setting
from smoothcache_core.schedule.solver import solver_differences
from smoothcache_core.schedule.values import (
    Count,
    Names,
    NonNegative,
    Number,
    Positive,
    Text,
    Value,
)

INPUTS = "inputs of seed "
"""Begins the name of the setting of `sampling` that says what the model was given, latent and
timestep apart, at the first evaluation of a run."""

_APART = 0.05
"""How far projections may differ for one model: between data types, or after a little tuning."""

_ROUNDINGS = 6.0
"""Standard deviations of rounding that are no difference: more than chance will ever make."""

_LATER = (
    "solver_settings",
    "weights_rounding",
    "sampling",
    "adapter_data",
    "latent_part",
    "denoisers",
)
"""Fields that files of before have not; where they are not known they are not written."""


_CLASSIFIER_FREE = ("true_cfg_scale", "cfg_scale", "guidance_scale")
"""Names of the strength of classifier-free guidance. Where there is a `true_cfg_scale`, the model
is told `guidance_scale` and makes no second pass of it."""


def _part(content: object) -> object:
    """Read a part of a latent as a file has it."""
    if not isinstance(content, Mapping):
        return content
    names = {field.name for field in fields(LatentPart)}
    if not {"dim"} <= content.keys() <= names:
        raise ValueError(f"a part of a latent has {sorted(names)}, got {sorted(map(str, content))}")
    try:
        return LatentPart(**content)
    except AdapterError as error:
        raise ValueError(str(error)) from error


class Fingerprint(Value):
    """What was measured. Fields that are not known are None and are not compared.

    Attributes:
        model_class: Class name of the denoiser, such as `"DiTTransformer2DModel"`.
        config_hash: Hash of its configuration, or of its parameter names and shapes.
        weights: Projections of a few of its parameters by their names, see `weight_projections`;
            they tell two models of one class apart.
        weights_rounding: Standard deviation by which 8-bit storage may have moved a projection;
            None where it has not.
        adapter: Name of the adapter that found the sites.
        adapter_data: That adapter itself, where no package knows one for the class; it is recorded,
            not compared.
        solver: Name of the solver, with its best known settings.
        solver_settings: Everything that decides on what the solver does, by the names that its
            scheduler gives it: what it was made with, and what its steps are called with (`eta`).
        evaluations: Denoiser evaluations of one run, per branch, at least 1.
        timesteps: The timesteps of the evaluations, where the host knew them.
        branches: Names of the conditioning passes evaluated by calls of their own.
        latent_shape: Shape of the latent without its batch dimension, such as (4, 32, 32).
        latent_part: What of the latent is denoised, where the rest of it is a condition, such as an
            image that is to be changed; None if all of it is, or nobody knows.
        dtype: Data type of the latent, for example `"float16"`.
        guidance: Strengths of guidance by the names that pipelines or denoisers give them, such as
            `guidance_scale`.
        sampling: What the sampler was told, by name: conditions, steps, samples of a run, as far as
            it says. Parts of one measurement must agree on it; a run by the schedule need not.
        versions: Versions of the packages that matter, by name; they are recorded, not compared.
        denoisers: Which of the denoisers that take turns made each evaluation, from 0 in the order
            of their `Relay`; None where there is one.
        transferred_from: Evaluations of the runs that were measured, if the calibration was
            resampled to other ones, see `transfer`; None if it was measured as it is.
    """

    model_class: Text | None = None
    config_hash: Text | None = None
    weights: Mapping[Text, Number] | None = None
    weights_rounding: NonNegative | None = None
    adapter: Text | None = None
    adapter_data: AdapterData | None = None
    solver: Text | None = None
    solver_settings: Mapping[Text, Setting] | None = None
    evaluations: Positive | None = None
    timesteps: tuple[Number, ...] | None = None
    branches: Names | None = None
    latent_shape: tuple[Count, ...] | None = None
    latent_part: Annotated[InstanceOf[LatentPart], BeforeValidator(_part)] | None = None
    dtype: Text | None = None
    guidance: Mapping[Text, Number] | None = None
    sampling: Mapping[Text, Setting] | None = None
    versions: Mapping[Text, Text] = {}
    denoisers: tuple[Count, ...] | None = None
    transferred_from: Positive | None = None

    @model_validator(mode="after")
    def _check_timesteps(self) -> Self:
        check_timesteps(self.timesteps, self.evaluations)
        part, shape = self.latent_part, self.latent_shape
        if part is not None and (shape is None or not part.fits(shape)):
            raise ValueError(f"a latent of shape {shape} has no part {part}")
        turns, evaluations = self.denoisers, self.evaluations
        if turns is not None and evaluations is not None and len(turns) != evaluations:
            raise ValueError(f"denoisers names {len(turns)} turns for {evaluations} evaluations")
        return self

    @property
    def recorded_adapter(self) -> PatternAdapter | None:
        """The adapter that found the sites, where it is recorded."""
        return self.adapter_data and self.adapter_data.adapter(self.adapter or "")

    @property
    def denoised_shape(self) -> tuple[int, ...] | None:
        """Shape of what is denoised of the latent, without its batch dimension, if it is known."""
        if self.latent_part is None or self.latent_shape is None:
            return self.latent_shape
        return self.latent_part.of(self.latent_shape)

    @property
    def handovers(self) -> tuple[int, ...]:
        """The evaluations at which another denoiser takes over, ascending; mostly none."""
        turns = self.denoisers or ()
        return tuple(i for i in range(1, len(turns)) if turns[i] != turns[i - 1])

    @property
    def strength(self) -> float | None:
        """Strength of classifier-free guidance, 1 for none; None if it is not known."""
        known = self.guidance or {}
        return next((known[name] for name in _CLASSIFIER_FREE if name in known), None)

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        return {k: v for k, v in content.items() if v is not None or k not in _LATER}

    def conflicts(self, other: "Fingerprint") -> list[str]:
        """Return why something with fingerprint `other` must be refused; empty if it fits.

        Args:
            other: Fingerprint of the live model or run.

        Returns:
            One reason for each of class, configuration, adapter and evaluations that is known of
            both and differs.
        """
        return _differences(self, other, ("model_class", "config_hash", "adapter", "evaluations"))

    def remarks(self, other: "Fingerprint") -> list[str]:
        """Return what differs in `other` without making it wrong.

        Args:
            other: Fingerprint of the live model or run.

        Returns:
            One remark for each of weights, solver, branches, latent shape, data type and guidance
            that is known of both and differs; one for each setting of the solver that does.
        """
        fields = ("weights", "branches", "latent_shape", "dtype", "guidance")
        weights, *others = (_differences(self, other, (field,)) for field in fields)
        solver = solver_differences(_solver(self), _solver(other), "planned for")
        return [*weights, *solver, *(reason for reasons in others for reason in reasons)]

    def mismatches(self, other: "Fingerprint") -> list[str]:
        """Return how `other` is not the same, unknown fields included and versions left out.

        Args:
            other: Fingerprint of what should be the same measurement.
        """
        names = [name for name in type(self).model_fields if name not in _ELSEWHERE]
        reasons = [_difference(self, other, name) for name in names]
        if None in (self.solver, other.solver):
            reasons.append(_difference(self, other, "solver"))
        timesteps = "" if self.timesteps == other.timesteps else "the timesteps differ"
        return [reason for reason in (*reasons, *self._told(other), timesteps) if reason]

    def differences(self, other: "Fingerprint") -> list[str]:
        """Return how `other` is not the same, as far as both are known; versions are left out.

        Args:
            other: Fingerprint of what may be the same measurement, before it is made.
        """
        names = (name for name in type(self).model_fields if name not in _ELSEWHERE)
        return [*_differences(self, other, names), *self._told(other)]

    def without_inputs(self) -> Self:
        """Return it without what the model was given, which checkpoints say of one seed."""
        known = {k: v for k, v in (self.sampling or {}).items() if not k.startswith(INPUTS)}
        return self.changed(sampling=known or None)

    def _told(self, other: "Fingerprint") -> list[str]:
        """Return which settings of the solver and of the sampler are not the same."""
        one, two = self.sampling or {}, other.sampling or {}
        changed = [name for name in one if name in two and one[name] != two[name]]
        told = [_sampling_difference(name, one[name], two[name]) for name in changed]
        told += _differences(self, other, ("latent_part",))
        return [*told, *solver_differences(_solver(self), _solver(other), "instead of")]


_ELSEWHERE = ("versions", "timesteps", "solver", *(name for name in _LATER if name != "denoisers"))
"""Fields that are compared in a way of their own, or not at all."""


def check_timesteps(timesteps: Sequence[float] | None, evaluations: int | None) -> None:
    """Refuse timesteps that are not one for each evaluation, where both are known.

    Raises:
        ValueError: They are more or fewer.
    """
    if timesteps is not None and evaluations is not None and len(timesteps) != evaluations:
        raise ValueError(f"there are {len(timesteps)} timesteps for {evaluations} evaluations")


def _sampling_difference(name: str, here: Setting, there: Setting) -> str:
    if name.startswith(INPUTS):
        seed = name.removeprefix(INPUTS)
        return f"what the model is given at seed {seed} (prompts, labels) is something else"
    return f"{name} is {there!r} instead of {here!r}"


def _solver(known: Fingerprint) -> tuple[str | None, Mapping[str, Setting] | None]:
    return known.solver, known.solver_settings


def _differences(one: Fingerprint, other: Fingerprint, fields: Iterable[str]) -> list[str]:
    known = [f for f in fields if None not in (getattr(one, f), getattr(other, f))]
    return [reason for field in known if (reason := _difference(one, other, field))]


def _difference(one: Fingerprint, other: Fingerprint, field: str) -> str:
    here, there = getattr(one, field), getattr(other, field)
    if field == "weights":
        rounding = max(one.weights_rounding or 0.0, other.weights_rounding or 0.0)
        return _weights_difference(here or {}, there or {}, _APART + _ROUNDINGS * rounding)
    return "" if here == there else f"{field} is {there!r} instead of {here!r}"


def _weights_difference(one: Mapping[str, float], other: Mapping[str, float], apart: float) -> str:
    common = one.keys() & other.keys()
    if all(abs(one[name] - other[name]) <= apart for name in common):
        return ""
    return "the weights are those of another model"
