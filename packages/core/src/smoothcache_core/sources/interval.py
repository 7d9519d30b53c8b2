"""Compute at regular intervals (FORA, arXiv 2407.01425)."""

from collections.abc import Iterable, Sequence

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule
from smoothcache_core.schedule.content import Row
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
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


def interval(
    every: int,
    *,
    evaluations: int,
    kinds: Sequence[str],
    fingerprint: Fingerprint | None = None,
    cost: Cost | None = None,
) -> Schedule:
    """Compute at every `every`-th evaluation and at the last one (FORA, arXiv 2407.01425).

    Example:
        >>> interval(2, evaluations=6, kinds=["attn"]).rows
        {'attn': (1, 0, 1, 0, 1, 1)}

    Args:
        every: Distance between computed evaluations, at least 1; 1 computes everything.
        evaluations: Evaluations of one run, at least 1.
        kinds: Kinds of site to cache, at least one.
        fingerprint: What the schedule is for, such as a calibration's; not compared if not given.
        cost: MACs per site; without it the schedule has no compute fraction.

    Raises:
        ScheduleError: `every` or `evaluations` is below 1, or there are no kinds.
    """
    return Schedule(
        evaluations=evaluations,
        rows=_rows(every, evaluations, kinds),
        source=_source(every),
        fingerprint=fingerprint or Fingerprint(),
        cost=cost,
    )


def interval_of(calibration: Calibration, every: int) -> Schedule:
    """Return the schedule of `interval` for what was calibrated, with its predicted error.

    Where another denoiser takes over, everything is computed too.

    Args:
        calibration: Says how many evaluations there are, the kinds of sites and their costs.
        every: Distance between computed evaluations, at least 1.

    Raises:
        ScheduleError: `every` is below 1, or there are no sites.
    """
    check_sites(calibration)
    rows = _rows(every, calibration.evaluations, calibration.kinds)
    taken_over = set(calibration.fingerprint.handovers)
    rows = {
        kind: tuple(1 if i in taken_over else one for i, one in enumerate(row))
        for kind, row in rows.items()
    }
    return with_prediction(calibration, schedule_of(calibration, rows, _source(every)))


def _rows(every: int, evaluations: int, kinds: Iterable[str]) -> dict[str, Row]:
    """Return rows that compute every so manyth evaluation, and the last one, by kind."""
    if every < 1 or evaluations < 1:
        raise ScheduleError(
            "an interval computes every n-th evaluation of a run, and both n and the evaluations "
            f"are at least 1, got {every}, {evaluations}"
        )
    row: Row = tuple(1 if i % every == 0 or i == evaluations - 1 else 0 for i in range(evaluations))
    return dict.fromkeys(kinds, row)


def _source(every: int) -> Provenance:
    return Provenance(name="interval", settings={"every": every})


def _begin(calibration: Calibration, limits: Limits, fill: FillRule | None = None) -> MakeSchedule:
    del fill  # this rule reuses
    most = min(calibration.max_lag, limits.max_lag or calibration.max_lag)

    def make(compute: float) -> Schedule:
        check_compute(compute)
        tried = (interval_of(calibration, every) for every in range(1, most + 2))
        found = next((one for one in tried if one.compute_fraction() <= compute), None)
        if found is None:
            raise ScheduleError(
                f"compute {compute:g} is out of reach with an interval of at most {most + 1}"
            )
        check_kept(found, limits, INTERVAL.title)
        return found

    return make


INTERVAL = SourceKind(
    name="interval",
    title="regular intervals (FORA)",
    plan=_begin,
    needs=lacks_sensitivities,
    made=lambda schedule: schedule.source.name == "interval",
    compared=False,
    published=True,
)
