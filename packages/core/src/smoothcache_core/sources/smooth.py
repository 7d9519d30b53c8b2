"""SmoothCache's threshold scan (arXiv 2411.10510, section 3) on calibrated errors."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.schedule.content import Row
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.calibrated import schedule_of
from smoothcache_core.sources.kind import (
    MakeSchedule,
    SourceKind,
    check_compute,
    check_kept,
    check_sites,
)
from smoothcache_core.sources.prediction import lacks_sensitivities, with_prediction
from smoothcache_core.sources.thresholds import by_threshold, longest_lag

Per = Literal["kind", "site"]

PUBLISHED_LAG = 3
"""Longest reuse that SmoothCache was published with."""


def smooth(
    calibration: Calibration,
    *,
    alpha: float,
    max_lag: int | None = None,
    per: Per = "kind",
    strict: bool = False,
) -> Schedule:
    """Reuse as long as the calibrated relative error stays within `alpha` (SmoothCache).

    The rule is that of arXiv 2411.10510, section 3.2, on the errors of its equation 4; see `scan`.

    Example:
        >>> schedule = smooth(calibration, alpha=0.18, max_lag=3)

    Args:
        calibration: Measured errors, at least at lag 1.
        alpha: Largest relative L1 error allowed, at least 0; the schedules that its
            authors ship have 0.08, 0.18 and 0.35.
        max_lag: Longest reuse, from 1 to what was calibrated; all of that if not given.
        per: Decide per `"kind"` on the mean over its sites, as SmoothCache does, or per `"site"`.
        strict: Also require the errors at all shorter lags to be within `alpha`. The published scan
            checks the longest only.

    Returns:
        A schedule without a prediction of its error; see `with_prediction`.

    Raises:
        ScheduleError: There are no sites, `alpha` is negative or infinite, or `max_lag` is not in
            what was calibrated.
    """
    check_sites(calibration)
    if not 0.0 <= alpha < np.inf:
        raise ScheduleError(f"alpha is a finite relative error, at least 0, got {alpha}")
    longest = longest_lag(calibration, max_lag)
    rows = {
        key: scan(curve[:longest], alpha, strict=strict)
        for key, curve in calibration.curves(per=per).items()
    }
    settings = {"alpha": alpha, "max_lag": longest, "per": per, "strict": strict}
    source = Provenance(name="smooth", settings=settings, seeds=calibration.seeds)
    return schedule_of(calibration, rows, source)


def scan(errors: Sequence[Sequence[float]] | Array, alpha: float, *, strict: bool = False) -> Row:
    """Return the row that SmoothCache's scan gives.

    From evaluation i = 0: take the longest lag k whose error at i is at most `alpha`, compute i,
    reuse at i+1..i+k, go on at i+k+1; if there is none, compute i and go on at i+1. The first and
    the last evaluation are always computed.

    Example:
        >>> scan([[0.1, 0.1, 0.5, 0.1]], 0.2)
        (1, 0, 1, 1)

    Args:
        errors: (lags, evaluations); entry [k - 1][i] is the error of reusing i's output at i + k,
            at least 0. Entries with i + k past the end are ignored.
        alpha: Largest error allowed, at least 0.
        strict: Require it of all lags 1..k, where the published scan looks at lag k alone.

    Returns:
        (evaluations,), 1 compute, 0 reuse.
    """
    evaluations = len(errors[0])
    row = [1] * evaluations
    i = 0
    while i < evaluations:
        lag = _longest_lag(errors, alpha, i, evaluations, strict)
        row[i + 1 : i + 1 + lag] = [0] * lag
        i += lag + 1
    row[-1] = 1
    return tuple(row)


def _longest_lag(
    errors: Sequence[Sequence[float]] | Array, alpha: float, i: int, evaluations: int, strict: bool
) -> int:
    within = [i + k < evaluations and errors[k - 1][i] <= alpha for k in range(1, len(errors) + 1)]
    if strict:
        return within.index(False) if False in within else len(within)
    return max((k for k, ok in enumerate(within, start=1) if ok), default=0)


def smooth_to_compute(
    calibration: Calibration,
    *,
    compute: float,
    max_lag: int | None = None,
    per: Per = "kind",
    strict: bool = False,
) -> Schedule:
    """Return the `smooth` schedule whose `alpha`, found by bisection, meets a compute fraction.

    Bisects over the errors that occur, so no schedule between two neighbours is missed; of those
    tried, the one nearest to `compute` from below is returned.

    Example:
        >>> schedule = smooth_to_compute(calibration, compute=0.6, max_lag=3)

    Args:
        calibration: Measured errors, with costs.
        compute: Wanted MACs over the MACs of the plain run, in (0, 1].
        max_lag: Longest reuse, from 1 to what was calibrated; all of that if not given.
        per: Decide per `"kind"`, as SmoothCache does, or per `"site"`.
        strict: Also require the errors at all shorter lags to be within `alpha`, unlike the
            published scan.

    Returns:
        A schedule that computes at most `compute`, without a prediction of its error.

    Raises:
        ScheduleError: There are no sites, or `compute` is out of range or below what the lags
            allow.
    """
    check_compute(compute)
    check_sites(calibration)

    def plan(alpha: float) -> Schedule:
        return smooth(calibration, alpha=alpha, max_lag=max_lag, per=per, strict=strict)

    curves = np.concatenate([c.ravel() for c in calibration.curves(per=per).values()])
    alphas = [0.0, *np.unique(curves[np.isfinite(curves)]).tolist()]
    return by_threshold(
        plan, alphas, compute, unless=f"with lags up to {max_lag or calibration.max_lag}"
    )


def _begin(calibration: Calibration, limits: Limits, fill: FillRule | None = None) -> MakeSchedule:
    del fill  # this rule reuses
    most = calibration.max_lag
    lag = min(PUBLISHED_LAG, most, limits.max_lag or most)

    def make(compute: float) -> Schedule:
        schedule = smooth_to_compute(calibration, compute=compute, max_lag=lag)
        check_kept(schedule, limits, SMOOTH.title)
        return with_prediction(calibration, schedule)

    return make


SMOOTH = SourceKind(
    name="smooth",
    title="SmoothCache's rule",
    plan=_begin,
    needs=lacks_sensitivities,
    made=lambda schedule: schedule.source.name == "smooth",
    published=True,
)
