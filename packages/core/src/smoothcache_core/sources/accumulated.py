"""Reuse until the changes that add up exceed a threshold: Block Caching, and TeaCache's rule.

Block Caching (arXiv 2312.03209, section 3.3) adds up, for every block, how much its output changes
from evaluation to evaluation; TeaCache (arXiv 2411.19108, section 3.3) does so for the model as a
whole, with changes that a polynomial foretells from the timestep embedding. Frozen to a schedule,
both are this rule on measured changes.
"""

from collections.abc import Sequence

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
from smoothcache_core.sources.smooth import Per
from smoothcache_core.sources.thresholds import by_threshold, longest_lag


def accumulate(changes: Sequence[float] | Array, threshold: float, *, longest: int = 0) -> Row:
    """Return the row that skips while accumulated changes do not exceed a threshold.

    From a computed evaluation on, the changes from one evaluation to the next are added up; the
    first evaluation at which the sum exceeds `threshold` is computed, and the sum begins anew. The
    first evaluation is always computed.

    Example:
        >>> accumulate([0.1, 0.1, 0.3, 0.1], 0.25)
        (1, 0, 0, 1, 0)

    Args:
        changes: (evaluations - 1,); entry [i] is the relative change from evaluation i to i + 1, at
            least 0.
        threshold: Largest sum that is skipped at, at least 0.
        longest: Most evaluations skipped in a row; 0 is any number.

    Returns:
        (evaluations,), 1 compute, 0 reuse.
    """
    row, total, skipped = [1], 0.0, 0
    for change in changes:
        total += float(change)
        computed = total > threshold or (longest > 0 and skipped >= longest)
        row.append(int(computed))
        total, skipped = (0.0, 0) if computed else (total, skipped + 1)
    return tuple(row)


def block_caching(
    calibration: Calibration, *, threshold: float, per: Per = "site", max_lag: int | None = None
) -> Schedule:
    """Reuse until the accumulated change of an output exceeds a threshold (Block Caching).

    The rule of arXiv 2312.03209, section 3.3, on the calibrated relative L1 changes; see
    `accumulate`.

    Example:
        >>> schedule = block_caching(calibration, threshold=0.2)

    Args:
        calibration: Measured errors, at least at lag 1.
        threshold: Largest accumulated relative change, at least 0; the paper has 0.1 to 0.5.
        per: Decide per `"site"`, as the paper does, or per `"kind"` on the mean over its sites.
        max_lag: Longest reuse; what was calibrated if not given.

    Returns:
        A schedule without a prediction of its error; see `with_prediction`.

    Raises:
        ScheduleError: There are no sites, the threshold is negative or infinite, or `max_lag` is
            not in what was calibrated.
    """
    check_sites(calibration)
    if not 0.0 <= threshold < np.inf:
        raise ScheduleError(f"threshold is a finite sum, at least 0, got {threshold}")
    longest = longest_lag(calibration, max_lag)
    rows = {
        key: accumulate(changes, threshold, longest=longest)
        for key, changes in _changes(calibration, per).items()
    }
    settings = {"threshold": threshold, "max_lag": longest, "per": per}
    source = Provenance(name="accumulated", settings=settings, seeds=calibration.seeds)
    return schedule_of(calibration, rows, source)


def _changes(calibration: Calibration, per: Per) -> dict[str, Array]:
    """Return changes from every evaluation to the next, (evaluations - 1,), infinite if unknown."""
    curves = calibration.curves(per=per)
    return {
        key: np.where(np.isnan(errors[0][:-1]), np.inf, errors[0][:-1])
        for key, errors in curves.items()
    }


def _begin(calibration: Calibration, limits: Limits, fill: FillRule | None = None) -> MakeSchedule:
    del fill  # this rule reuses
    most = calibration.max_lag
    lag = min(most, limits.max_lag or most)

    def make(compute: float) -> Schedule:
        check_compute(compute)
        check_sites(calibration)
        schedule = by_threshold(
            lambda threshold: block_caching(calibration, threshold=threshold, max_lag=lag),
            _sums(calibration, lag),
            compute,
            unless=f"with at most {lag} in a row",
        )
        check_kept(schedule, limits, ACCUMULATED.title)
        return with_prediction(calibration, schedule)

    return make


def _sums(calibration: Calibration, longest: int) -> list[float]:
    """Return the sums of changes in a row, at which schedules differ, in ascending order."""
    sums = [0.0]
    for changes in _changes(calibration, "site").values():
        finite = np.where(np.isfinite(changes), changes, 0.0)
        total = np.concatenate(([0.0], np.cumsum(finite)))
        sums += [
            float(value)
            for lag in range(1, min(longest, len(finite)) + 1)
            for value in total[lag:] - total[:-lag]
        ]
    return sorted(set(sums))


ACCUMULATED = SourceKind(
    name="accumulated",
    title="accumulated change (Block Caching)",
    plan=_begin,
    needs=lacks_sensitivities,
    made=lambda schedule: schedule.source.name == "accumulated",
    compared=False,
    published=True,
)
