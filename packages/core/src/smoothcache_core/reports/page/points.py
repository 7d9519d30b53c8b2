"""The points of the plot of error over compute, and which of them is recommended."""

import math
from collections.abc import Mapping, Sequence

from smoothcache_core.planning.front import Point
from smoothcache_core.reports.page.values import (
    Alternative,
    ErrorPoint,
    Headline,
    PointKind,
)
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.reports.tables import shown_bytes
from smoothcache_core.reports.trade_off import with_distance
from smoothcache_core.schedule.provenance import Aim
from smoothcache_core.sources import SOURCES

WITHIN = 0.05
"""Error up to which the fastest policy is recommended: what is changed is then 26 dB below the
sample, and rarely seen or heard without being magnified."""


def measured_points(
    rows: Sequence[ReportRow],
    schedules: Mapping[str, str],
    *,
    peers: bool = False,
    distance_from: Aim = "plain",
) -> list[ErrorPoint]:
    """Return what was measured, except rows without compute or a finite error.

    Args:
        rows: Rows of a report or a record.
        schedules: Files of the schedules, by policy.
        peers: Whether somebody else measured them.
        distance_from: What errors are distances from, whatever the policies aim at.
    """
    return [
        ErrorPoint(
            policy=row.policy,
            kind="peer" if peers else _kind(row),
            compute=compute,
            error=error,
            low=row.interval(distance_from)[0],
            high=row.interval(distance_from)[1],
            predicted=None if row.prediction is None else row.prediction.distance(distance_from),
            seconds=row.seconds if math.isfinite(row.seconds) else None,
            speedup=row.speedup if math.isfinite(row.speedup) else None,
            schedule=schedules.get(row.policy),
        )
        for row, compute, error in with_distance(rows, distance_from)
    ]


def _kind(row: ReportRow) -> PointKind:
    if row.source is None:
        return "plain"
    return "ours" if row.ours else "published"


def planned_points(points: Sequence[Point], distance_from: Aim = "plain") -> list[ErrorPoint]:
    """Return plans with their predicted errors, by the name of what planned them.

    Args:
        points: Points of a front.
        distance_from: What errors are distances from; plans with another aim are left out.
    """
    titles = {kind.name: kind.title for kind in SOURCES}
    return [
        ErrorPoint(
            policy=f"predicted: {titles.get(point.name, point.name)}",
            kind="planned",
            compute=point.compute,
            error=point.error,
        )
        for point in points
        if point.schedule.toward == distance_from
    ]


def headline_of(
    rows: Sequence[ReportRow], schedules: Mapping[str, str], lines: Mapping[str, str]
) -> Headline | None:
    """Return the policy that is recommended: the least compute whose error is within 0.05.

    Of those that compute the same, to a hundredth, the one that errs less. Where none is within,
    the one of the least error is recommended; else that one is named beside. Methods of this
    library are preferred, as only their errors are predicted. Each is judged by the distance from
    what it aims at, if that was measured.

    Args:
        rows: Rows of a report.
        schedules: Files of the schedules, by policy.
        lines: Commands that sample with them, by policy.
    """
    cached = [row for row in rows if row.source is not None and math.isfinite(row.rel_l2)]
    known = [row for row in cached if row.ours] or cached
    if not known:
        return None
    plain = next((row for row in rows if row.source is None), None)
    good = [row for row in known if _error(row) <= WITHIN]
    closest = min(known, key=_error)
    best = min(good, key=_compute) if good else closest
    low, high = best.interval(_aim(best))
    return Headline(
        policy=best.policy,
        why=f"the least compute whose error is within {WITHIN:g}" if good else "the least error",
        speedup=best.speedup,
        compute=best.compute,
        error=_error(best),
        low=low,
        high=high,
        distance_from=_aim(best),
        costs=_costs(best, plain),
        schedule=schedules.get(best.policy),
        line=lines.get(best.policy),
        closest=None if closest is best else _alternative(closest, schedules),
    )


def _alternative(row: ReportRow, schedules: Mapping[str, str]) -> Alternative:
    return Alternative(
        policy=row.policy,
        speedup=row.speedup,
        error=_error(row),
        schedule=schedules.get(row.policy),
    )


def _aim(row: ReportRow) -> Aim:
    """Return what the error of a row is to be a distance from, as far as it was measured."""
    return "plain" if row.error is None else row.toward


def _error(row: ReportRow) -> float:
    return row.rel_l2 if row.error is None else row.error


def _compute(row: ReportRow) -> tuple[float, float]:
    """Return what orders policies by how much they compute; by time where that is not known."""
    compute = row.compute if row.compute is not None else 1.0 / row.speedup
    return round(compute, 2), _error(row)


def _costs(row: ReportRow, plain: ReportRow | None) -> list[str]:
    """Return what else there is to say of the cost."""
    costs = []
    if _aim(row) == "exact" and plain is not None and plain.exact_rel_l2 is not None:
        costs.append(f"the plain run is {plain.exact_rel_l2:.2g} away from it")
    if row.psnr_db is not None and math.isfinite(row.psnr_db):
        costs.append(f"PSNR {row.psnr_db:.1f} dB")
    if row.accuracy is not None and plain is not None and plain.accuracy is not None:
        costs.append(f"accuracy {row.accuracy:.0%}, plain {plain.accuracy:.0%}")
    return [*costs, f"{shown_bytes(row.bytes_peak)} of memory"] if row.bytes_peak else costs
