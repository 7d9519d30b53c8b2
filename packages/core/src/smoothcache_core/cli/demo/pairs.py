"""Plans beside SmoothCache's schedules, for the same compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from smoothcache_core import Calibration, Report, Schedule
from smoothcache_core.cli.planning import smooth_plan
from smoothcache_core.cli.tables import source_of, target_of
from smoothcache_core.errors import CommandError, ScheduleError
from smoothcache_core.planning import Planner


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two schedules for one compute fraction: the best plan, and SmoothCache's if it gets there.

    Attributes:
        compute: The most MACs over those of the plain run, in (0, 1].
        plan: The best plan.
        smooth: The schedule of SmoothCache's rule.
    """

    compute: float
    plan: Schedule
    smooth: Schedule | None

    @property
    def name(self) -> str:
        """Name of the plan."""
        return f"plan {self.compute:g}"

    @property
    def smooth_name(self) -> str:
        """Name of SmoothCache's schedule."""
        return f"SmoothCache {self.compute:g}"

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Both schedules by name."""
        smooth = {} if self.smooth is None else {self.smooth_name: self.smooth}
        return {self.name: self.plan, **smooth}


def plan_pairs(calibration: Calibration, planner: Planner, computes: Sequence[float]) -> list[Pair]:
    """Return the best plan, and SmoothCache's, for every compute fraction within reach.

    Args:
        calibration: What was measured.
        planner: Plans that calibration, for all targets.
        computes: Compute fractions to plan for, in (0, 1].

    Raises:
        CommandError: None of them is.
    """
    pairs: list[Pair] = []
    missed: ScheduleError | None = None
    for compute in computes:
        try:
            best = planner.to_compute(compute)
        except ScheduleError as error:
            missed = error
            continue
        pairs.append(Pair(compute=compute, plan=best, smooth=_smooth(calibration, compute)))
    if not pairs:
        raise CommandError(f"none of the compute fractions is possible: {missed}") from missed
    return pairs


def _smooth(calibration: Calibration, compute: float) -> Schedule | None:
    try:
        return smooth_plan(calibration, compute)
    except ScheduleError:
        return None


def described_pairs(pairs: Sequence[Pair]) -> str:
    """Say what the plans skip."""
    return "; ".join(f"for {pair.compute:g} of the compute, {_what(pair.plan)}" for pair in pairs)


def _what(schedule: Schedule) -> str:
    kind = source_of(schedule)
    return schedule.source.name if kind is None else kind.title


def comparison(report: Report, pairs: Sequence[Pair]) -> Table:
    """Return a table of the errors that the two schedules of every pair make."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("compute", "plan", "its error", "SmoothCache's error", "times as large"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for pair in pairs:
        ours = report.row(pair.name)
        known = [f"{pair.compute:g}", target_of(pair.plan), f"{ours.rel_l2:.2g}"]
        if pair.smooth is None:
            table.add_row(*known, "out of reach", "-")
            continue
        smooth = report.row(pair.smooth_name)
        ratio = smooth.rel_l2 / ours.rel_l2 if ours.rel_l2 else math.inf
        table.add_row(*known, f"{smooth.rel_l2:.2g}", f"{ratio:.1f}")
    return table
