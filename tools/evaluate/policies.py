"""What is compared: how each policy is made for a compute budget, from calibration samples only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType

from smoothcache_core import Calibration, Schedule
from smoothcache_core.cli.fitting import fitted_to
from smoothcache_core.cli.planning import smooth_plan
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, reuse, taylor
from smoothcache_core.planning import Planner
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.sources import with_prediction
from smoothcache_core.sources.extrapolated import extrapolated
from smoothcache_core.sources.kind import check_sites

from tools.bench.baselines.fora import fora
from tools.bench.baselines.whole import whole
from tools.bench.policies import OutOfReachError, spaced_row

FEWEST_STEPS = 2
"""Steps below which many solvers of diffusers and k-diffusion cannot be set."""


@dataclass(frozen=True)
class Steps:
    """The plain model with fewer steps of its solver."""

    steps: int


Made = Schedule | Steps
"""What a policy is at a budget."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What policies are made from.

    Attributes:
        calibration: What was measured on the calibration samples.
        sampler: Samples them.
        seeds: Seeds of their runs.
    """

    calibration: Calibration
    sampler: ConditionedSampler
    seeds: Sequence[int]

    @cached_property
    def planner(self) -> Planner:
        """Plans the calibration for all targets, and remembers what it searched."""
        return Planner(self.calibration)


Make = Callable[[Material, float], Made]
"""Makes a policy for a compute budget in (0, 1); a `ScheduleError` says that it cannot."""


@dataclass(frozen=True, kw_only=True)
class PolicyKind:
    """A policy, whatever its budget.

    Attributes:
        title: What it does, for readers.
        make: Makes it for a budget.
        ours: Whether it is this library's own method.
        quick: Whether `--quick` compares it.
        reach: What finds out how little it can compute, where making it takes runs of the model.
    """

    title: str
    make: Make
    ours: bool = False
    quick: bool = True
    reach: Make | None = None


def _planned(material: Material, budget: float) -> Schedule:
    return material.planner.to_compute(budget)


def _fitted(material: Material, budget: float) -> Schedule:
    plan = material.planner.to_compute(budget)
    return fitted_to(material.sampler, plan, seeds=material.seeds, progress=False)


def _smoothcache(material: Material, budget: float) -> Schedule:
    return smooth_plan(material.calibration, budget)


def _fora(rule: FillRule, material: Material, budget: float) -> Schedule:
    """Compute evenly spaced evaluations of all sites."""
    calibration = material.calibration
    check_sites(calibration)
    try:
        made = fora(calibration, budget)
    except OutOfReachError as error:
        raise ScheduleError(str(error)) from error
    fills = {key: extrapolated(row, rule) for key, row in made.rows.items()}
    fills = {key: fill for key, fill in fills.items() if fill.terms}
    return with_prediction(calibration, made.changed(fills=fills))


def _even(rule: FillRule, material: Material, budget: float) -> Schedule:
    """Compute evenly spaced evaluations of the whole denoiser."""
    calibration = material.calibration
    evaluations = calibration.evaluations
    computed = int(budget * evaluations + 1e-9)  # what rounding takes away
    if computed < 1:
        raise ScheduleError(f"computing once costs {1 / evaluations:.3f} of the MACs already")
    return whole(calibration, spaced_row(evaluations, computed), rule, "even")


def _fewer_steps(material: Material, budget: float) -> Steps:
    plain = material.sampler.steps
    steps = int(budget * plain + 1e-9)  # what rounding takes away
    if steps < FEWEST_STEPS:
        raise ScheduleError(f"{FEWEST_STEPS} steps cost {FEWEST_STEPS / plain:.3f} of the MACs")
    return Steps(steps)


POLICIES: Mapping[str, PolicyKind] = MappingProxyType(
    {
        "planned": PolicyKind(
            title="`plan(calibration, compute=...)`: whatever is predicted to be best",
            make=_planned,
            ours=True,
        ),
        "fitted": PolicyKind(
            title="the same schedule after `fit`", make=_fitted, ours=True, reach=_planned
        ),
        "smoothcache": PolicyKind(
            title="SmoothCache's threshold rule, with the least lag that reaches the budget",
            make=_smoothcache,
        ),
        "fora": PolicyKind(
            title="FORA: sites computed at evenly spaced evaluations, reused between",
            make=partial(_fora, reuse()),
        ),
        "fora+taylor": PolicyKind(
            title="the same, extrapolated between (TaylorSeer, order 1)",
            make=partial(_fora, taylor(1)),
        ),
        "fora+taylor2": PolicyKind(
            title="the same, extrapolated between (TaylorSeer, order 2)",
            make=partial(_fora, taylor(2)),
            quick=False,
        ),
        "even": PolicyKind(
            title="whole evaluations skipped evenly, the output reused",
            make=partial(_even, reuse()),
            quick=False,
        ),
        "even+taylor": PolicyKind(
            title="whole evaluations skipped evenly, the output extrapolated (order 1)",
            make=partial(_even, taylor(1)),
        ),
        "even+taylor2": PolicyKind(
            title="whole evaluations skipped evenly, the output extrapolated (order 2)",
            make=partial(_even, taylor(2)),
            quick=False,
        ),
        "fewer-steps": PolicyKind(
            title="the plain model with fewer steps of its solver", make=_fewer_steps
        ),
    }
)
"""All policies by name, in the order of tables that are not sorted by error."""


def least_compute(make: Make, material: Material) -> float | None:
    """Return the least compute that a policy can be made for.

    Found by bisection over whole evaluations, as if what can be made for some compute could be made
    for more.

    Args:
        make: Makes the policy.
        material: What it is made from.

    Returns:
        In (0, 1]; None if it cannot be made at all.
    """
    evaluations = material.calibration.evaluations
    low, high = 0, evaluations
    least = _tried(make, material, 1.0)
    while least is not None and high - low > 1:
        middle = (low + high) // 2
        made = _tried(make, material, middle / evaluations)
        low, high = (low, middle) if made is not None else (middle, high)
        least = made or least
    return None if least is None else compute_of(least, material)


def _tried(make: Make, material: Material, compute: float) -> Made | None:
    try:
        return make(material, compute)
    except ScheduleError:
        return None


def compute_of(made: Made, material: Material) -> float:
    """Return what a policy computes of the MACs of a plain run."""
    if isinstance(made, Schedule):
        return made.compute_fraction()
    plain = material.sampler.evaluations
    fewer = of_steps(material.sampler, made).evaluations
    if plain is None or fewer is None:
        return made.steps / material.sampler.steps
    return fewer / plain


def of_steps(sampler: ConditionedSampler, made: Steps) -> ConditionedSampler:
    """Return the same sampler with fewer steps."""
    return replace(sampler, steps=made.steps)
