"""Whole evaluations: skip the denoiser and fill its output.

What to skip is searched, and the coefficients are fitted, on a `ReducedRun`, without the model.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache, partial

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, rounded
from smoothcache_core.numerics.least_squares import check_enough
from smoothcache_core.optimize.local_search import Found, Search
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import Simulated, is_share_of, reduced_run
from smoothcache_core.schedule.fill import MOST_TERMS, Fill
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.provenance import Aim, Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.strengths import fill_at
from smoothcache_core.sources.calibrated import schedule_of
from smoothcache_core.sources.exact import check_exact, corrections
from smoothcache_core.sources.kind import MakeSchedule, SourceKind, check_compute, fits
from smoothcache_core.sources.promises import Promises

_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Strengths of guidance, less 1, over the planned one, at which the error is foretold: from 1.06 to
9 for a plan made at 1.5."""


class EvaluationPlanner:
    """Plans whole evaluations for one budget after the other; what it searched is remembered.

    Args:
        calibration: Measured with sensitivities.
        guidance: Whether the unconditional pass may be skipped where the rest is computed.
        terms: The most computed outputs a fill combines, 1 to `MOST_TERMS`.
        use_input: Whether fills also use the latent.
        use_anchor: Whether fills use the latent of the evaluation computed last as well. If not
            given, they do where the solver adds noise, which is where it tells anything.
        limits: What must be kept to; the last evaluation is computed too if the calibration did not
            see the final sample. Distinct rows and bytes are not looked at.
        toward: What samples shall come near to. Toward the exact solution computed outputs are
            corrected, and errors are distances to it.

    Raises:
        ScheduleError: The calibration lacks what is needed, or does not allow what is asked.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        guidance: bool = False,
        terms: int = MOST_TERMS,
        use_input: bool = True,
        use_anchor: bool | None = None,
        limits: Limits | None = None,
        toward: Aim = "plain",
    ) -> None:
        self._calibration = calibration
        self._toward: Aim = toward
        self._guidance = guidance
        self._dynamics = _checked(calibration, guidance=guidance)
        _check_fills(calibration, terms, terms + use_input + bool(use_anchor))
        if toward == "exact":
            check_exact(calibration)
        self._reduced = reduced_run(self._dynamics, toward)
        anchor = self._reduced.is_noisy if use_anchor is None else use_anchor
        self._basis = Basis(terms=terms, use_input=use_input, use_anchor=anchor)
        self._limits = _limits(self._dynamics, limits or Limits())
        self._search = Search(self._reduced, self._limits, self._basis)

    def _rescalable(self, evaluations: Iterable[int]) -> bool:
        """Return whether what was fitted can be rescaled to another strength of guidance."""
        if self._reduced.parts != 2:
            return False
        unconditional = 1 - (self._dynamics.conditional or 0)
        shares = self._dynamics.response.weights[:, unconditional]
        strength = self._calibration.fingerprint.strength
        return all(is_share_of(float(shares[i]), strength) for i in evaluations)

    @property
    def least(self) -> float:
        """The smallest compute fraction that can be planned."""
        evaluations = self._calibration.evaluations
        return len(self._limits.fewest(evaluations)) / evaluations

    def plan(self, compute: float) -> Schedule:
        """Return the best schedule found that computes at most `compute`, in (0, 1]."""
        check_compute(compute)
        evaluations = self._calibration.evaluations
        budget = compute * evaluations
        if budget + 1e-9 < self.least * evaluations:
            raise ScheduleError(
                f"compute {compute:g} cannot be reached: with {evaluations} evaluations and these "
                f"limits (first, pinned, max_lag) the minimum is {self.least:.3g}"
            )
        found = self._search.best(budget, guidance=self._guidance)
        return self._schedule(found, compute)

    def _schedule(self, found: Found, compute: float) -> Schedule:
        calibration = self._calibration
        run = self._reduced.simulate(found.mask, self._basis)
        rows, fills = _rows(found.mask), _fills(run, rescalable=self._rescalable(run.corrections))
        named = {
            "compute": compute,
            "guidance": self._guidance,
            **asdict(self._basis),
            **({"toward": self._toward} if self._toward == "exact" else {}),
        }
        schedule = schedule_of(
            calibration,
            rows,
            Provenance(name="whole", settings=named, seeds=calibration.seeds),
            {key: fill for key, fill in fills.items() if fill.terms},
        )
        schedule = schedule.changed(corrected=corrections(run))
        prediction = Promises(self._calibration, noisy=self._reduced.is_noisy).of(
            schedule,
            run.uncertain_error,
            by_guidance=self._by_guidance(found.mask, run),
            to_plain=run.to_plain if self._toward == "exact" else None,
            bytes=schedule.predicted_bytes(),
            seconds=self._dynamics.seconds_at(schedule.compute_fraction()),
        )
        return schedule.changed(prediction=prediction)

    def _by_guidance(self, mask: Mask, run: Simulated) -> dict[float, float]:
        """Return estimates of the error at other strengths of guidance; empty if there are none."""
        planned = self._calibration.fingerprint.strength
        if self._toward == "exact":
            return {}  # that of another strength is another solution
        if planned is None or not self._rescalable(range(self._reduced.evaluations)):
            return {}
        found: dict[float, float] = {}
        for factor in _FACTORS:
            strength = round(1.0 + factor * (planned - 1.0), 6)
            fill = Fill(terms=run.differences, corrections=run.corrections)
            given = replace(run, differences=dict(fill_at(fill, planned, strength).terms))
            other = self._reduced.at_strength(strength).replay(mask, self._basis, given)
            found[strength] = other.uncertain_error
        return found


def plan_evaluations(
    calibration: Calibration,
    *,
    compute: float,
    guidance: bool = False,
    terms: int = MOST_TERMS,
    use_input: bool = True,
    use_anchor: bool | None = None,
    limits: Limits | None = None,
    toward: Aim = "plain",
) -> Schedule:
    """Return a schedule that skips whole evaluations, with its fills and its predicted error.

    Its rows are `"denoiser"`, and `"guidance"` where unconditional passes are skipped; what to skip
    is found by local search on a simulated run, and each fill is fitted to land on the plain run's
    next latent (docs/how-it-works.md).

    Example:
        >>> schedule = plan_evaluations(calibration, compute=0.5, limits=Limits(first=2))
        >>> schedule.row(DENOISER)[:2]
        (1, 1)

    Args:
        calibration: Measured with sensitivities.
        compute: Evaluations computed over all, in (0, 1].
        guidance: Whether the unconditional pass may be skipped where the rest is computed.
        terms: The most computed outputs a fill combines, 1 to `MOST_TERMS`.
        use_input: Whether fills also use the latent.
        use_anchor: Whether fills use the latent of the evaluation computed last as well. If not
            given, they do where the solver adds noise, which is where it tells anything.
        limits: Evaluations and lags that the schedule must keep to; bytes and distinct rows are not
            looked at.
        toward: What samples shall come near to: the plain run, or the exact solution.

    Returns:
        A schedule of at most `compute`, with its fills and its predicted error.

    Raises:
        ScheduleError: The calibration lacks what is needed, or the budget is out of reach.
    """
    planner = EvaluationPlanner(
        calibration,
        guidance=guidance,
        terms=terms,
        use_input=use_input,
        use_anchor=use_anchor,
        limits=limits,
        toward=toward,
    )
    return planner.plan(compute)


def can_skip_guidance(calibration: Calibration) -> bool:
    """Return whether the unconditional pass can be skipped: there is one, and it is known which.

    Where the passes are calls of their own, the conditional one must come first.
    """
    dynamics = calibration.dynamics
    if dynamics is None or dynamics.response.weights.shape[1] != 2:
        return False
    sequential = len(calibration.branches) == 2
    return dynamics.conditional == 0 if sequential else dynamics.conditional is not None


def _lacks_dynamics(calibration: Calibration) -> str:
    """Return why whole evaluations cannot be planned; empty if they can."""
    if calibration.dynamics is not None and calibration.dynamics.measured:
        return ""
    if calibration.remark:
        return f"no error can be predicted from this calibration: {calibration.remark}"
    return (
        "this calibration has no sensitivities, so no error can be predicted; calibrate with "
        "sensitivity=2, or take a published rule (target smooth or interval)"
    )


def _lacks_guidance(calibration: Calibration) -> str:
    """Return why whole evaluations and unconditional passes cannot be planned, likewise."""
    if lacking := _lacks_dynamics(calibration):
        return lacking
    if can_skip_guidance(calibration):
        return ""
    return (
        "the unconditional pass cannot be skipped: the run has no conditional and unconditional "
        "pass, the adapter does not say which is which, or the unconditional one comes first"
    )


def _checked(calibration: Calibration, *, guidance: bool) -> Dynamics:
    lacking = _lacks_guidance(calibration) if guidance else _lacks_dynamics(calibration)
    if lacking:
        raise ScheduleError(lacking)
    assert calibration.dynamics is not None
    return calibration.dynamics


def _check_fills(calibration: Calibration, terms: int, coefficients: int) -> None:
    if not 1 <= terms <= MOST_TERMS:
        raise ScheduleError(f"a fill has 1 to {MOST_TERMS} terms, got {terms}")
    entries = math.prod(calibration.fingerprint.denoised_shape or (10**9,))
    check_enough(calibration.samples, entries, coefficients, verb="calibrate")


def _limits(dynamics: Dynamics, limits: Limits) -> Limits:
    """Return the limits of a run, whose last evaluation is pinned if its effect is not known."""
    limits.check(dynamics.evaluations)
    if dynamics.response.knows_end:
        return limits
    return replace(limits, pinned=(*limits.pinned, dynamics.evaluations - 1))


def _rows(mask: Mask) -> dict[str, tuple[int, ...]]:
    rows = {DENOISER.kind: tuple(int(one) for one in mask.denoiser)}
    halves = any(one and not both for one, both in zip(*_pair(mask), strict=True))
    if halves:
        rows[GUIDANCE.kind] = tuple(
            int(one and both) for one, both in zip(*_pair(mask), strict=True)
        )
    return rows


def _pair(mask: Mask) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    return mask.denoiser, mask.guidance


def _fills(run: Simulated, *, rescalable: bool) -> dict[str, Fill]:
    outputs = {i: rounded(terms) for i, terms in run.terms.items()}
    inputs = {i: rounded([value])[0] for i, value in run.inputs.items()}
    anchors = {i: rounded([value])[0] for i, value in run.anchors.items()}
    differences = {i: rounded(terms) for i, terms in run.differences.items()}
    corrections = {i: rounded(parts) for i, parts in run.corrections.items()}
    return {
        DENOISER.kind: Fill(terms=outputs, inputs=inputs, anchors=anchors),
        GUIDANCE.kind: Fill(terms=differences, corrections=corrections if rescalable else None),
    }


# ---------------------------------------------------------------------------- for the dial


_TERMS = tuple(range(MOST_TERMS, 0, -1))
"""Terms of fills: fewer only where memory is capped."""


def _begin(
    calibration: Calibration,
    limits: Limits,
    fill: FillRule | None = None,
    *,
    guidance: bool,
    toward: Aim = "plain",
) -> MakeSchedule:
    del fill  # outputs of the denoiser are filled to land on the next latent of what is aimed at

    @cache
    def planner(terms: int) -> EvaluationPlanner:
        return EvaluationPlanner(
            calibration, guidance=guidance, terms=terms, limits=limits, toward=toward
        )

    def make(compute: float) -> Schedule:
        """Return the schedule of the most terms that fits into memory, else of the most terms."""
        plans = (planner(terms).plan(compute) for terms in _TERMS)
        first = next(plans)
        if fits(first, limits):
            return first
        return next((made for made in plans if fits(made, limits)), first)

    return make


def _is_whole(schedule: Schedule, *, guidance: bool) -> bool:
    return schedule.source.name == "whole" and (GUIDANCE.kind in schedule.rows) == guidance


WHOLE_EVALUATIONS = SourceKind(
    name="denoiser",
    title="whole evaluations",
    plan=partial(_begin, guidance=False),
    exact=partial(_begin, guidance=False, toward="exact"),
    needs=_lacks_dynamics,
    made=partial(_is_whole, guidance=False),
    of_sites=False,
)


UNCONDITIONAL_PASSES = SourceKind(
    name="guidance",
    title="whole evaluations and unconditional passes",
    plan=partial(_begin, guidance=True),
    exact=partial(_begin, guidance=True, toward="exact"),
    needs=_lacks_guidance,
    made=partial(_is_whole, guidance=True),
    of_sites=False,
)
