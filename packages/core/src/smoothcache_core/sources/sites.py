"""Budget-optimal schedules of sites: dynamic programming on predicted effects.

What is where: `plan_sites` and what the dial knows of it here; effects, prices and the schedule of
given rows in `site_problem.py`; the dynamic programme in `optimize/`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import get_args

from smoothcache_core.adapters.levels import Level
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, linear, reuse
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.kind import (
    MakeSchedule,
    SourceKind,
    check_compute,
    fits,
    or_none,
    predicted_error,
)
from smoothcache_core.sources.prediction import lacks_sensitivities
from smoothcache_core.sources.site_problem import Objective, Per, Problem


def plan_sites(
    calibration: Calibration,
    *,
    compute: float,
    fill: FillRule | None = None,
    per: Per = "site",
    objective: Objective = "sum",
    prices: Mapping[str, float] | None = None,
    limits: Limits | None = None,
) -> Schedule:
    """Return the schedule of sites with the least predicted effect within a budget.

    Rows are found by dynamic programming on segments between computed evaluations, shared out by
    Lagrangian relaxation of a multiple-choice knapsack (docs/how-it-works.md).

    Example:
        >>> from smoothcache_core.fills import taylor
        >>> schedule = plan_sites(calibration, compute=0.6, fill=taylor(1), per="kind")

    Args:
        calibration: Measured with sensitivities.
        compute: The most MACs over those of the plain run, in (0, 1].
        fill: How skipped outputs are made; two calibrated terms if not given.
        per: What shares a row: nothing (`"site"`), the sites of a `"kind"`, or all sites of an
            `"evaluation"`.
        objective: What is minimised over sites and evaluations: the `"sum"` of effects, the sum of
            their `"squares"`, the largest (`"minimax"`), or the sum of `"relative"` errors, which
            knows nothing of the final sample.
        prices: Price of computing once, by kind or path, above 0 (measured seconds, say); MACs if
            not given.
        limits: Evaluations, lags, memory and distinct rows that the schedule must keep to.

    Returns:
        A schedule of at most `compute`, with its fills and its predicted error.

    Raises:
        ScheduleError: The calibration lacks what is needed, a setting is wrong, or the budget is
            out of reach.
    """
    rule, limits = fill or linear(2), limits or Limits()
    _check(compute, per, objective, limits)
    problem = Problem(calibration, rule, per, objective, limits, prices)
    try:
        rows = problem.solve(problem.budget(compute))
    except ScheduleError as error:
        raise ScheduleError(f"compute {compute:g} cannot be planned for sites: {error}") from error
    return problem.schedule(rows, compute)


def _check(compute: float, per: str, objective: str, limits: Limits) -> None:
    check_compute(compute)
    if per not in get_args(Per):
        raise ScheduleError(f"per is one of {list(get_args(Per))}, got {per!r}")
    if objective not in get_args(Objective):
        raise ScheduleError(f"objective is one of {list(get_args(Objective))}, got {objective!r}")
    if objective == "minimax" and limits.max_rows is not None:
        raise ScheduleError("max_rows cannot be kept with the objective 'minimax'; take another")


# ---------------------------------------------------------------------------- for the dial


_CAPPED = (linear(3), linear(2), reuse())
"""Rules to compare where memory is capped; without a cap no rule leaves less than the first."""


_LEVELS: Mapping[str, Level] = MappingProxyType({"block": "blocks", "span": "spans"})
"""What the sites of a target are, where they are not parts."""


def _begin(
    calibration: Calibration, limits: Limits, fill: FillRule | None = None, *, target: str
) -> MakeSchedule:
    rules = _CAPPED if fill is None else (fill,)
    level = _LEVELS.get(target, "parts")
    per: Per = "kind" if target == "kind" else "evaluation" if target == "evaluation" else "site"

    def plan_by(rule: FillRule, limits: Limits, compute: float) -> Schedule:
        if lacking := _lacks_level(calibration, level):
            raise ScheduleError(lacking)
        known = calibration.levels[level]
        made = plan_sites(known, compute=compute, fill=rule, per=per, limits=limits)
        if level == "parts":
            return made
        settings = {**made.source.settings, "per": target}
        return made.changed(source=made.source.changed(settings=settings))

    def make(compute: float) -> Schedule:
        free = plan_by(rules[0], replace(limits, max_bytes=None), compute)
        if fits(free, limits):
            return free
        capped = [or_none(plan_by, rule, limits, compute) for rule in rules]
        fitting = [one for one in capped if one is not None and fits(one, limits)]
        return min(fitting, key=predicted_error, default=free)

    return make


def _lacks_level(calibration: Calibration, level: Level) -> str:
    """Return why sites of a level cannot be planned; empty if they can."""
    if level in calibration.levels:
        return lacks_sensitivities(calibration.levels[level])
    return (
        f"this calibration is of {' and '.join(calibration.levels)}, not of {level}; calibrate "
        f"with sites=({level!r},) as well"
    )


def _by(target: str, title: str, *, compared: bool) -> SourceKind:
    def made(schedule: Schedule) -> bool:
        source = schedule.source
        return source.name == "planned" and source.settings.get("per") == target

    return SourceKind(
        name=target,
        title=title,
        plan=partial(_begin, target=target),
        needs=partial(_lacks_level, level=_LEVELS.get(target, "parts")),
        made=made,
        takes_fill=True,
        compared=compared,
    )


BY_SITE = _by("site", "parts of the model", compared=True)


BY_KIND = _by("kind", "kinds of parts of the model", compared=False)


BY_EVALUATION = _by("evaluation", "all parts of the model at once", compared=False)


BY_BLOCK = _by("block", "whole blocks, whose deltas are kept", compared=True)


BY_SPAN = _by("span", "spans of blocks, whose deltas are kept", compared=True)
