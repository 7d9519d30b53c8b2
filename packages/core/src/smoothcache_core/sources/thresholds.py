"""What rules with a threshold share: how long they may reuse, and a threshold for a compute."""

from collections.abc import Callable, Sequence

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.schedule import Schedule


def by_threshold(
    plan: Callable[[float], Schedule], thresholds: Sequence[float], compute: float, *, unless: str
) -> Schedule:
    """Return the schedule nearest to a compute fraction from below, of those that bisection tries.

    Args:
        plan: Returns the schedule of a threshold; the larger that is, the less is computed, all in
            all, though not at every single one.
        thresholds: Where schedules change, in ascending order, at least one.
        compute: Wanted MACs over the MACs of the plain run, in (0, 1].
        unless: What to say of a compute fraction that cannot be reached: what would make it so.

    Raises:
        ScheduleError: Even the largest threshold computes more.
    """
    low, high = 0, len(thresholds) - 1
    best = plan(thresholds[high])
    if best.compute_fraction() > compute:
        raise ScheduleError(
            f"compute {compute} cannot be reached: {unless} the minimum is "
            f"{best.compute_fraction():.3f}; calibrate again with a larger max_lag"
        )
    while low < high:
        middle = (low + high) // 2
        candidate = plan(thresholds[middle])
        if candidate.compute_fraction() <= compute:
            best, high = max(best, candidate, key=Schedule.compute_fraction), middle
        else:
            low = middle + 1
    return best


def longest_lag(calibration: Calibration, max_lag: int | None) -> int:
    """Return the longest reuse that a rule may plan.

    Args:
        calibration: What was measured.
        max_lag: What was asked for; None is all that was calibrated.

    Raises:
        ScheduleError: No errors of sites are known, or not at that lag.
    """
    if not calibration.max_lag:
        raise ScheduleError(f"this calibration knows no errors of sites: {calibration.remark}")
    longest = calibration.max_lag if max_lag is None else max_lag
    if not 1 <= longest <= calibration.max_lag:
        raise ScheduleError(
            f"max_lag must be from 1 to {calibration.max_lag}, the largest measured, got {longest}"
        )
    return longest
