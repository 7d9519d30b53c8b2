"""The dial: a schedule for a compute fraction, a speed-up or an error, whichever is asked for."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Literal

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError, SmoothCacheWarning
from smoothcache_core.fills import FillRule, linear, reuse
from smoothcache_core.planning.front import Choice, Point, beats
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.evaluations import EvaluationPlanner, can_skip_guidance
from smoothcache_core.sources.prediction import with_prediction
from smoothcache_core.sources.sites import plan_sites
from smoothcache_core.sources.smooth import smooth_to_compute

Target = Literal["auto", "denoiser", "guidance", "site", "kind", "evaluation", "smooth"]


COMPUTES = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)


_FEW = 6


_PUBLISHED_LAG = 3


_STEPS = 20


_TERMS = (3, 2, 1)
"""Terms of fills of whole evaluations: fewer only where memory is capped."""


def plan(
    calibration: Calibration,
    *,
    compute: float | None = None,
    speedup: float | None = None,
    error: float | None = None,
    target: Target = "auto",
    limits: Limits | None = None,
) -> Schedule:
    """Return the best schedule for what is asked.

    Example:
        >>> schedule = plan(calibration, compute=0.5)
        >>> schedule = plan(calibration, speedup=2.0)
        >>> schedule = plan(calibration, error=0.02)

    Args:
        calibration: Measured with sensitivities.
        compute: The most MACs over those of the plain run, in (0, 1].
        speedup: Plain MACs over computed MACs, at least 1; the speed-up if time were MACs alone.
        error: The most relative L2 error of the final sample, above 0; what computes least is
            returned.
        target: What is skipped: whole evaluations (`"denoiser"`), these and unconditional passes
            (`"guidance"`), or sublayers planned per `"site"`, `"kind"` or `"evaluation"` or by
            SmoothCache's rule (`"smooth"`); `"auto"` takes what is predicted to be best.
        limits: What must be kept to.

    Raises:
        ScheduleError: Not exactly one of compute, speedup and error is given, it is out of range or
            out of reach, or the calibration lacks what is needed.
    """
    wanted = {"compute": compute, "speedup": speedup, "error": error}
    given = {name: value for name, value in wanted.items() if value is not None}
    if len(given) != 1:
        raise ScheduleError(f"give one of compute, speedup and error, got {given or 'none'}")
    planner = Planner(calibration, target=target, limits=limits)
    if error is not None:
        schedule = planner.to_error(error)
    else:
        schedule = planner.to_compute(_fraction(compute, speedup))
    _tell_if_useless(schedule)
    return schedule


def _fraction(compute: float | None, speedup: float | None) -> float:
    if speedup is None:
        assert compute is not None
        return compute
    if not 1.0 <= speedup < float("inf"):
        raise ScheduleError(f"speedup is at least 1, got {speedup}")
    return 1.0 / speedup


def _tell_if_useless(schedule: Schedule) -> None:
    if schedule.skips and schedule.evaluations > _FEW:
        return
    skipped = "only few can be skipped" if schedule.skips else "nothing is skipped"
    warnings.warn(
        f"the run has {schedule.evaluations} evaluations and {skipped}: caching helps little here",
        SmoothCacheWarning,
        stacklevel=3,
    )


class Planner:
    """Plans one calibration for several budgets; remembers what it searched."""

    def __init__(
        self,
        calibration: Calibration,
        *,
        target: Target = "auto",
        limits: Limits | None = None,
    ) -> None:
        self._calibration = calibration
        self._limits = limits or Limits()
        self._limits.check(calibration.evaluations)
        self._searched: dict[tuple[bool, int], EvaluationPlanner] = {}
        ways = self._ways()
        if target != "auto" and target not in ways:
            raise ScheduleError(f"target is 'auto' or one of {list(ways)}, got {target!r}")
        self._chosen = self._useful() if target == "auto" else (target,)
        self._plans: dict[tuple[str, float], Schedule | ScheduleError] = {}

    def _ways(self) -> dict[str, Callable[[float], Schedule]]:
        return {
            "denoiser": partial(self._whole_evaluations, False),
            "guidance": partial(self._whole_evaluations, True),
            **{per: self._sites(per) for per in ("site", "kind", "evaluation")},
            "smooth": self._smooth,
        }

    def _useful(self) -> tuple[str, ...]:
        """Return the ways that `auto` compares."""
        dynamics = self._calibration.dynamics
        if dynamics is None or not dynamics.measured:
            self._whole(False, _TERMS[0])  # says what is missing
        guided = ("guidance",) if can_skip_guidance(self._calibration) else ()
        return ("denoiser", *guided, "site", "smooth")

    def _whole(self, guidance: bool, terms: int) -> EvaluationPlanner:
        key = guidance, terms
        if key not in self._searched:
            self._searched[key] = EvaluationPlanner(
                self._calibration, guidance=guidance, terms=terms, limits=self._limits
            )
        return self._searched[key]

    def _whole_evaluations(self, guidance: bool, compute: float) -> Schedule:
        """Return the schedule of the most terms that fits into memory, else of the fewest."""
        plans = (self._whole(guidance, terms).plan(compute) for terms in _TERMS)
        first = next(plans)
        if self._fits(first):
            return first
        return next((made for made in plans if self._fits(made)), first)

    def _sites(self, per: Literal["site", "kind", "evaluation"]) -> Callable[[float], Schedule]:
        limits = self._limits

        def make(rule: FillRule, limits: Limits, compute: float) -> Schedule:
            return plan_sites(self._calibration, compute=compute, fill=rule, per=per, limits=limits)

        def best(compute: float) -> Schedule:
            free = make(linear(3), replace(limits, max_bytes=None), compute)
            if self._fits(free):
                return free
            capped = (partial(make, rule, limits) for rule in (linear(3), linear(2), reuse()))
            tried = [_or_none(one, compute) for one in capped]
            return min((one for one in tried if one and self._fits(one)), key=_error, default=free)

        return best

    def _smooth(self, compute: float) -> Schedule:
        limits, most = self._limits, self._calibration.max_lag
        lag = min(_PUBLISHED_LAG, most, most if limits.max_lag is None else limits.max_lag)
        schedule = smooth_to_compute(self._calibration, compute=compute, max_lag=lag)
        rows = set(schedule.rows.values())
        if any(row[i] == 0 for row in rows for i in limits.computed):
            raise ScheduleError("SmoothCache's rule knows no pinned evaluations; take a target")
        if limits.max_rows is not None and len(rows) > limits.max_rows:
            raise ScheduleError(f"SmoothCache's rule made {len(rows)} rows, over max_rows")
        return with_prediction(self._calibration, schedule)

    def _plan(self, way: str, compute: float) -> Schedule | ScheduleError:
        key = way, compute
        if key not in self._plans:
            try:
                self._plans[key] = self._checked(self._ways()[way](compute))
            except ScheduleError as error:
                self._plans[key] = error
        return self._plans[key]

    def _checked(self, schedule: Schedule) -> Schedule:
        if schedule.prediction is None:
            raise ScheduleError(
                "there are no sensitivities to predict an error by: calibrate with `sensitivity=2`"
            )
        return schedule

    # ------------------------------------------------------------------ for the user

    def candidates(self, compute: float) -> dict[str, Schedule]:
        """Return the schedules of all targets for one compute fraction, the best first.

        Raises:
            ScheduleError: No target can be planned; says why.
        """
        plans = {way: self._plan(way, compute) for way in self._chosen}
        found = {way: made for way, made in plans.items() if isinstance(made, Schedule)}
        found = {way: made for way, made in found.items() if self._fits(made)}
        if not found:
            reasons = [str(made) for made in plans.values() if isinstance(made, ScheduleError)]
            raise ScheduleError(
                reasons[0] if reasons else f"no plan holds at most {self._limits.max_bytes} bytes"
            )
        return dict(sorted(found.items(), key=lambda item: _error(item[1])))

    def _fits(self, schedule: Schedule) -> bool:
        cap = self._limits.max_bytes
        return cap is None or schedule.predicted_bytes() <= cap

    def to_compute(self, compute: float) -> Schedule:
        """Return the schedule with the least predicted error within a compute fraction."""
        return next(iter(self.candidates(compute).values()))

    def to_error(self, error: float) -> Schedule:
        """Return the schedule that computes least with at most a predicted error.

        It is found by bisection over half evaluations, as if errors rose whenever compute falls.

        Raises:
            ScheduleError: `error` is not positive, or no schedule that skips anything keeps to it.
        """
        if not error > 0.0:
            raise ScheduleError(f"error is a relative L2 error above 0, got {error}")
        evaluations = self._calibration.evaluations
        low, high, best = 0, 2 * evaluations, None
        for _ in range(_STEPS):
            middle = (low + high) // 2
            if middle in (low, high):
                break
            made = _or_none(self.to_compute, middle / (2 * evaluations))
            if made is not None and _error(made) <= error:
                high, best = middle, made
            else:
                low = middle
        if best is None:
            raise ScheduleError(f"no schedule that skips anything keeps the error within {error:g}")
        return best

    def front(self, computes: Iterable[float] = COMPUTES) -> list[Point]:
        """Return schedules of all targets for many budgets, by falling compute."""
        points = [
            Point(name=way, schedule=made, compute=made.compute_fraction(), error=_error(made))
            for compute in computes
            for way in self._chosen
            if isinstance(made := self._plan(way, compute), Schedule) and self._fits(made)
        ]
        marked = [
            Point(
                name=p.name,
                schedule=p.schedule,
                compute=p.compute,
                error=p.error,
                best=not any(beats(other, p) for other in points),
            )
            for p in points
        ]
        return sorted(marked, key=lambda point: -point.compute)


def auto(
    calibration: Calibration,
    *,
    error: float = 0.01,
    computes: Iterable[float] = COMPUTES,
    limits: Limits | None = None,
) -> Choice:
    """Compare all targets at many budgets, and choose what computes least within an error.

    Args:
        calibration: Measured with sensitivities.
        error: The most predicted relative L2 error of the final sample.
        computes: Compute fractions to plan for, in (0, 1].
        limits: What every plan must keep to.

    Raises:
        ScheduleError: Nothing that skips anything keeps the error, or the calibration lacks what is
            needed.
    """
    points = Planner(calibration, limits=limits).front(computes)
    within = [point for point in points if point.error <= error]
    if not within:
        least = min((point.error for point in points), default=float("nan"))
        raise ScheduleError(
            f"no plan keeps the predicted error within {error:g}; the least is {least:.3g}"
        )
    chosen = min(within, key=lambda point: (point.compute, point.error))
    _tell_if_useless(chosen.schedule)
    return Choice(points=points, chosen=chosen, why=_why(chosen, points, error))


def _why(chosen: Point, points: Iterable[Point], error: float) -> str:
    others = {}
    for point in points:
        if point.name != chosen.name and point.error <= error:
            best = others.get(point.name)
            others[point.name] = min(point.compute, best or point.compute)
    rest = ", ".join(f"{name} needs {compute:.2f}" for name, compute in others.items())
    return (
        f"{chosen.name} keeps the predicted error within {error:g} ({chosen.error:.2g}) with "
        f"{chosen.compute:.2f} of the compute" + (f"; {rest}" if rest else "; nothing else does")
    )


def _or_none(make: Callable[[float], Schedule], compute: float) -> Schedule | None:
    try:
        return make(compute)
    except ScheduleError:
        return None


def _error(schedule: Schedule) -> float:
    assert schedule.prediction is not None
    return schedule.prediction.error
