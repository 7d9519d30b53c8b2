"""The dial: a schedule for a compute fraction, a speed-up or an error, whichever is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

from smoothcache_core.arguments import check_kind
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError, warn
from smoothcache_core.fills import FillRule
from smoothcache_core.planning.cautions import cautions
from smoothcache_core.planning.front import Choice, Point, beats
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.provenance import Aim
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.storage import Storage, width_of
from smoothcache_core.sources import SOURCES
from smoothcache_core.sources.exact import Corrector
from smoothcache_core.sources.kind import (
    BeginPlanning,
    SourceKind,
    fits,
    lacks_sites,
    or_none,
    predicted_error,
)
from smoothcache_core.sources.storing import stored

COMPUTES = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)
"""Compute fractions of a front: from hardly any saving to a tenth, each a sixth or more below the
one before, as errors go by ratios."""


_FEW = 6  # evaluations up to which a user is told that caching helps little


_STEPS = 20  # halvings of half evaluations: enough for a run of 500,000


def plan(
    calibration: Calibration,
    *,
    compute: float | None = None,
    speedup: float | None = None,
    error: float | None = None,
    target: str = "auto",
    limits: Limits | None = None,
    fill: FillRule | None = None,
    storage: Storage | None = None,
    toward: Aim = "plain",
) -> Schedule:
    """Return the schedule with the least predicted error for a budget of compute, or the reverse.

    Exactly one of `compute`, `speedup` and `error` says what is asked for. How schedules are
    searched and errors predicted is in docs/how-it-works.md. Warns where caching helps little:
    nothing can be skipped, or the run has 6 evaluations or fewer; where the calibration has fewer
    than 4 samples; and where the error is beyond what can be foretold.

    Example:
        >>> schedule = plan(calibration, compute=0.5)
        >>> schedule.compute_fraction() <= 0.5
        True
        >>> schedule = plan(calibration, speedup=1.5)
        >>> schedule = plan(calibration, error=0.02)
        >>> schedule.prediction.error <= 0.02
        True
        >>> from smoothcache_core.fills import taylor
        >>> schedule = plan(calibration, compute=0.6, target="site", fill=taylor(1))

    Args:
        calibration: Measured with sensitivities.
        compute: The most MACs over those of the plain run, in (0, 1].
        speedup: Plain MACs over computed MACs, at least 1; the speed-up if time were MACs alone.
        error: The most relative L2 error of the final sample, above 0; what computes least is
            returned.
        target: Name of a schedule source, see `sources.SOURCES`: whole evaluations are skipped
            (`"denoiser"`), these and unconditional passes (`"guidance"`), or sublayers planned per
            `"site"`, `"kind"` or `"evaluation"`, by SmoothCache's rule (`"smooth"`) or at regular
            intervals (`"interval"`); where they were calibrated, whole blocks (`"block"`) or spans
            of blocks (`"span"`), which keep less; `"auto"` takes what is predicted to be best of
            what fits `max_bytes`.
        limits: Constraints such as `Limits(first=2, max_lag=4, max_bytes=2 * 10**9)`, of
            `smoothcache_core.planning`; only the first evaluation is sure to be computed if not
            given.
        fill: How skipped outputs of sublayers are made: a rule of `smoothcache_core.fills`, such as
            `reuse()`, `taylor(1)` or `linear(3)`; by calibrated coefficients of
            up to three outputs if not given. `"auto"` then compares only what takes a rule.
        storage: How outputs are to be kept, `Storage(place="cpu", dtype="bfloat16")` of
            `smoothcache_core.schedule`: the schedule says so, its bytes are those, and its error
            includes that of rounding. As they were computed if not given.
        toward: What samples shall come near to: the `"plain"` run; or the `"exact"` solution that
            its solver comes near to, which was measured by `calibrate(..., reference="exact")`.
            Then computed outputs are corrected as well, `error` is the distance to the exact
            solution, and `compute=1.0` is a choice of its own: as much work, nearer samples.

    Returns:
        A schedule with a fingerprint, costs and a prediction of its error.

    Raises:
        ScheduleError: Not exactly one of compute, speedup and error is given, it is out of range or
            out of reach, or the calibration lacks what is needed.
    """
    wanted = {"compute": compute, "speedup": speedup, "error": error}
    given = {name: value for name, value in wanted.items() if value is not None}
    if len(given) != 1:
        raise ScheduleError(
            f"give exactly one of compute, speedup and error, got {given or 'none'}"
        )
    planner = Planner(
        calibration, target=target, limits=limits, fill=fill, storage=storage, toward=toward
    )
    if error is not None:
        schedule = planner.to_error(error)
    else:
        schedule = planner.to_compute(_fraction(compute, speedup))
    _warn_if_useless(schedule)
    for caution in cautions(calibration, schedule):
        warn(caution)
    return schedule


def _fraction(compute: float | None, speedup: float | None) -> float:
    if speedup is None:
        assert compute is not None
        return compute
    if not 1.0 <= speedup < float("inf"):
        raise ScheduleError(f"speedup is at least 1, got {speedup}")
    return 1.0 / speedup


def _warn_if_useless(schedule: Schedule) -> None:
    if (schedule.skips or schedule.corrected) and schedule.evaluations > _FEW:
        return
    skipped = "only few can be skipped" if schedule.skips else "nothing is skipped"
    warn(
        f"a run of {schedule.evaluations} evaluations leaves little to cache: {skipped}, so expect "
        "little speed-up",
    )


class Planner:
    """Plans one calibration for several budgets; remembers what it searched.

    Example:
        >>> planner = Planner(calibration)
        >>> [round(planner.to_compute(part).compute_fraction(), 2) for part in (0.75, 0.5)]
        [0.75, 0.5]

    Args:
        calibration: Measured with sensitivities.
        target: Name of a schedule source in `sources.SOURCES`; `"auto"` compares those that can
            plan this calibration.
        limits: What every plan must keep to; the defaults of `Limits` if not given.
        fill: How skipped outputs of sites are made, see `fills`; the sources choose if not given.
        storage: How outputs are to be kept; as they were computed if not given.
        toward: What samples shall come near to, see `plan`.

    Raises:
        ScheduleError: There is no such target, it takes no fill rule, no run can keep to the
            limits, or for `"auto"` the calibration lacks what is needed.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        target: str = "auto",
        limits: Limits | None = None,
        fill: FillRule | None = None,
        storage: Storage | None = None,
        toward: Aim = "plain",
    ) -> None:
        check_kind(calibration, Calibration, name="calibration", error=ScheduleError)
        if toward not in get_args(Aim):
            raise ScheduleError(f"toward is one of {list(get_args(Aim))}, got {toward!r}")
        self._corrector = Corrector(calibration) if toward == "exact" else None
        if calibration.evaluations == 1:
            raise ScheduleError("a run of one evaluation leaves nothing to skip: nothing to plan")
        self._calibration = calibration
        self._limits = limits or Limits()
        self._limits.check(calibration.evaluations)
        self._storage = storage or Storage()
        kinds = _chosen(calibration, target, filled=fill is not None)
        self._makers = {
            kind.name: self._begun(kind)(calibration, self._limits_before_rounding(kind), fill)
            for kind in kinds
        }
        self._plans: dict[tuple[str, float], Schedule | ScheduleError] = {}

    def _begun(self, kind: SourceKind) -> BeginPlanning:
        """Return what begins to plan by a source for what is aimed at."""
        return kind.plan if self._corrector is None or kind.exact is None else kind.exact

    def _limits_before_rounding(self, kind: SourceKind) -> Limits:
        """Return the limits of schedules whose outputs are then kept in fewer bits."""
        most, cost = self._limits.max_bytes, self._calibration.cost
        if most is None:
            return self._limits
        widths = [each.width for each in cost.sites] if kind.of_sites else [cost.output_width]
        known = [each or width_of(self._calibration.fingerprint.dtype) for each in widths]
        share = min(map(self._storage.share, known), default=1.0)
        return replace(self._limits, max_bytes=int(most / share))

    def _plan(self, name: str, compute: float) -> Schedule | ScheduleError:
        key = name, compute
        if key not in self._plans:
            try:
                made = _checked(self._makers[name](compute), self._calibration)
                if self._corrector is not None and made.corrected is None:
                    made = self._corrector.corrected(made)
                if not self._storage.is_plain:
                    made = stored(self._calibration, made, self._storage)
                self._plans[key] = made
            except ScheduleError as error:
                self._plans[key] = error
        return self._plans[key]

    # ------------------------------------------------------------------ for the user

    def candidates(self, compute: float) -> dict[str, Schedule]:
        """Return the schedules of all targets for one compute fraction, the best first.

        Args:
            compute: The most MACs over those of the plain run, in (0, 1].

        Returns:
            Schedules by the names of their sources, by rising predicted error; those over
            `max_bytes` are left out.

        Raises:
            ScheduleError: No target can be planned; says why.
        """
        plans = {name: self._plan(name, compute) for name in self._makers}
        found = {name: made for name, made in plans.items() if isinstance(made, Schedule)}
        found = {name: made for name, made in found.items() if fits(made, self._limits)}
        if not found:
            raise ScheduleError(self._nothing(plans))
        return dict(sorted(found.items(), key=lambda item: predicted_error(item[1])))

    def _nothing(self, plans: Mapping[str, Schedule | ScheduleError]) -> str:
        """Return why no plan is left."""
        sizes = {n: p.predicted_bytes() for n, p in plans.items() if isinstance(p, Schedule)}
        if not sizes:
            return next(str(made) for made in plans.values())
        least = min(sizes, key=lambda name: sizes[name])
        measured = list(self._calibration.levels)
        more = "" if "spans" in measured else "; spans of blocks keep less, sites=('spans',)"
        return (
            f"no plan fits into {self._limits.max_bytes} bytes: target {least!r} keeps the least, "
            f"{sizes[least]}{more if least in ('site', 'kind') else ''}; raise max_bytes"
        )

    def to_compute(self, compute: float) -> Schedule:
        """Return the schedule with the least predicted error within a compute fraction.

        Args:
            compute: The most MACs over those of the plain run, in (0, 1].

        Raises:
            ScheduleError: No target can be planned; says why.
        """
        return next(iter(self.candidates(compute).values()))

    def to_error(self, error: float) -> Schedule:
        """Return the schedule that computes least with at most a predicted error.

        It is found by bisection over half evaluations, as if errors rose whenever compute falls.

        Args:
            error: The most predicted relative L2 error of the final sample, above 0.

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
            made = or_none(self.to_compute, middle / (2 * evaluations))
            if made is not None and predicted_error(made) <= error:
                high, best = middle, made
            else:
                low = middle
        if best is None and self._corrector is not None:
            best = or_none(self.to_compute, 1.0)
            best = best if best is not None and predicted_error(best) <= error else None
        if best is None:
            raise ScheduleError(f"no schedule that skips anything keeps the error within {error:g}")
        return best

    def front(self, computes: Iterable[float] = COMPUTES) -> list[Point]:
        """Return schedules of all targets for many budgets, by falling compute.

        Args:
            computes: Compute fractions to plan for, in (0, 1]; those out of reach are left out.
        """
        plans = [(name, self._plan(name, compute)) for compute in computes for name in self._makers]
        points = [
            _point(name, made)
            for name, made in plans
            if isinstance(made, Schedule) and fits(made, self._limits)
        ]
        marked = [replace(p, best=not any(beats(other, p) for other in points)) for p in points]
        return sorted(marked, key=lambda point: -point.compute)


def _point(name: str, schedule: Schedule) -> Point:
    compute, error = schedule.compute_fraction(), predicted_error(schedule)
    return Point(name=name, schedule=schedule, compute=compute, error=error)


def _chosen(calibration: Calibration, target: str, *, filled: bool) -> tuple[SourceKind, ...]:
    """Return the sources to plan by: that of the target, or those that `auto` compares.

    Args:
        calibration: What `auto` must be able to plan.
        target: Name of a schedule source in `sources.SOURCES`; `"auto"` compares those that can
            plan this calibration.
        filled: Whether a fill rule was given; only sources that take one are good then.
    """
    if target == "auto":
        compared = [kind for kind in SOURCES if kind.compared and (kind.takes_fill or not filled)]
        lacking = [kind.needs(calibration) for kind in compared]
        if all(lacking):
            raise ScheduleError(lacking[0])
        return tuple(kind for kind, lack in zip(compared, lacking, strict=True) if not lack)
    found = tuple(kind for kind in SOURCES if kind.name == target)
    if not found:
        names = [kind.name for kind in SOURCES]
        raise ScheduleError(f"target is 'auto' or one of {names}, got {target!r}")
    if found[0].of_sites and not any(each.sites for each in calibration.levels.values()):
        left = [kind.name for kind in SOURCES if not kind.of_sites]
        raise ScheduleError(f"{lacks_sites(calibration)}: target is 'auto' or one of {left} here")
    if filled and not found[0].takes_fill:
        takers = [kind.name for kind in SOURCES if kind.takes_fill]
        raise ScheduleError(
            f"target {target!r} makes its own fills; a fill rule is for 'auto' and {takers}"
        )
    return found


def _checked(schedule: Schedule, calibration: Calibration) -> Schedule:
    if schedule.prediction is None:
        why = calibration.remark or "calibrate with `sensitivity=2`"
        raise ScheduleError(f"there are no sensitivities to predict an error by: {why}")
    return schedule


def auto(
    calibration: Calibration,
    *,
    error: float = 0.01,
    computes: Iterable[float] = COMPUTES,
    limits: Limits | None = None,
    fill: FillRule | None = None,
    storage: Storage | None = None,
    toward: Aim = "plain",
) -> Choice:
    """Compare all targets at many budgets, and choose what computes least within an error.

    Example:
        >>> choice = auto(calibration, error=0.05)
        >>> choice.chosen.error <= 0.05
        True

    Args:
        calibration: Measured with sensitivities.
        error: The most predicted relative L2 error of the final sample, above 0.
        computes: Compute fractions to plan for, in (0, 1].
        limits: What every plan must keep to; the defaults of `Limits` if not given.
        fill: How skipped outputs of sites are made, see `fills`; the sources choose if not given.
        storage: How outputs are to be kept; as they were computed if not given.
        toward: What samples shall come near to, see `plan`.

    Returns:
        All schedules, the chosen one, and why it was chosen.

    Raises:
        ScheduleError: Nothing that skips anything keeps the error, or the calibration lacks what is
            needed.
    """
    planner = Planner(calibration, limits=limits, fill=fill, storage=storage, toward=toward)
    points = planner.front(computes)
    within = [point for point in points if point.error <= error]
    if not within:
        least = min((point.error for point in points), default=float("nan"))
        raise ScheduleError(
            f"no plan keeps the predicted error within {error:g}; the least is {least:.3g}"
        )
    chosen = min(within, key=lambda point: (point.compute, point.error))
    _warn_if_useless(chosen.schedule)
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
