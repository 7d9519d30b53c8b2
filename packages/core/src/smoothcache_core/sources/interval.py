"""Compute at regular intervals (FORA, arXiv 2407.01425)."""

from collections.abc import Sequence

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule


def interval(
    every: int,
    *,
    evaluations: int,
    kinds: Sequence[str],
    fingerprint: Fingerprint | None = None,
    cost: Cost | None = None,
) -> Schedule:
    """Compute at every `every`-th evaluation and at the last one.

    Args:
        every: Distance between computed evaluations, at least 1; 1 computes everything.
        evaluations: Evaluations of one run.
        kinds: Kinds of site to cache.
        fingerprint: What the schedule is for, if known (a calibration's, say).
        cost: MACs per site, if known.

    Raises:
        ScheduleError: `every` or `evaluations` is below 1, or there are no kinds.
    """
    if every < 1 or evaluations < 1:
        raise ScheduleError(f"every and evaluations must be at least 1, got {every}, {evaluations}")
    row = tuple(int(i % every == 0 or i == evaluations - 1) for i in range(evaluations))
    return Schedule(
        evaluations=evaluations,
        rows=dict.fromkeys(kinds, row),
        source=Provenance(name="interval", settings={"every": every}),
        fingerprint=fingerprint or Fingerprint(),
        cost=cost,
    )
