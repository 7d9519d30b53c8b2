"""Pyramid attention broadcast (PAB, arXiv 2408.12588): each kind of attention at its own interval.

In the middle of a run outputs of attention hardly change, those of cross-attention least, those of
spatial attention most. So each kind is computed every n-th evaluation there, and its output
broadcast to those between; outside of that window everything is computed.
"""

from collections.abc import Mapping

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.content import Row
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

WINDOW = (0.07, 0.55)
"""Where outputs are broadcast, as shares of the way from noise to data: timesteps 930 to 450 of
1000, as published for Open-Sora v1.2."""


def pyramid(
    ranges: Mapping[str, int],
    *,
    evaluations: int,
    window: tuple[float, float] = WINDOW,
    fingerprint: Fingerprint | None = None,
    cost: Cost | None = None,
) -> Schedule:
    """Broadcast outputs of each kind at its own interval, inside a window (PAB).

    Example:
        >>> pyramid({"attn": 2, "cross_attn": 4}, evaluations=8, window=(0.25, 0.75)).rows
        {'attn': (1, 1, 1, 0, 1, 0, 1, 1), 'cross_attn': (1, 1, 1, 0, 0, 0, 1, 1)}

    Args:
        ranges: For every kind of site how many evaluations an output serves, at least 1; 2 for
            spatial, 4 for temporal and 6 for cross-attention are published for the least loss.
        evaluations: Evaluations of one run, at least 1.
        window: Where outputs are broadcast, as shares of the run, in [0, 1] and ascending.
        fingerprint: What the schedule is for, such as a calibration's; not compared if not given.
        cost: MACs per site; without it the schedule has no compute fraction.

    Raises:
        ScheduleError: There are no kinds or evaluations, or a range or the window is impossible.
    """
    low, high = window
    if not 0.0 <= low <= high <= 1.0:
        raise ScheduleError(f"window is two shares of a run, in [0, 1] and ascending, got {window}")
    if evaluations < 1 or not ranges or min(ranges.values()) < 1:
        raise ScheduleError(
            f"there is at least one kind and evaluation, and ranges are at least 1; got {ranges} "
            f"and {evaluations} evaluations"
        )
    first, end = (round(share * evaluations) for share in window)
    settings = {"ranges": ", ".join(f"{kind} {every}" for kind, every in ranges.items())}
    return Schedule(
        evaluations=evaluations,
        rows={kind: _row(evaluations, every, first, end) for kind, every in ranges.items()},
        source=Provenance(name="pyramid", settings=settings | {"window": f"{low:g} to {high:g}"}),
        fingerprint=fingerprint or Fingerprint(),
        cost=cost,
    )


def _row(evaluations: int, every: int, first: int, end: int) -> Row:
    """Return a row that computes every n-th evaluation of a window, and all outside."""
    return tuple(int(not first <= i < end or (i - first) % every == 0) for i in range(evaluations))
