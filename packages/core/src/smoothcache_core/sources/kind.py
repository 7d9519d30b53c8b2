"""What a schedule source is, for the dial that chooses one and for those who tell of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.schedule import Schedule

P = ParamSpec("P")


MakeSchedule = Callable[[float], Schedule]
"""Plans for a compute fraction in (0, 1]; raises `ScheduleError` where it cannot."""


class BeginPlanning(Protocol):
    """Prepares to plan one calibration."""

    def __call__(
        self, calibration: Calibration, limits: Limits, fill: FillRule | None = None
    ) -> MakeSchedule:
        """Return what plans one budget after the other, and may remember what it searched.

        Args:
            calibration: What was measured; nothing is refused before a schedule is asked for.
            limits: What every schedule must keep to.
            fill: How skipped outputs are made, where the source takes a rule; its own choice if not
                given.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """One way of making schedules, as `plan`, the commands and the reports know it.

    Attributes:
        name: Its name as a target of `plan`, and in tables.
        title: What it skips, or whose rule it is, for readers.
        plan: Begins to plan a calibration; see `BeginPlanning`.
        exact: Begins to plan one toward the exact solution; if not given, what `plan` makes is
            corrected.
        needs: Returns what a calibration lacks to be planned like this; empty if nothing.
        made: Returns whether a schedule was made like this, by its provenance.
        of_sites: Whether it skips sites, parts of the model, rather than all of it.
        takes_fill: Whether it can be told how skipped outputs are made.
        compared: Whether `auto` compares it with the others.
        published: Whether it is somebody's published rule, to compare with.
    """

    name: str
    title: str
    plan: BeginPlanning
    needs: Callable[[Calibration], str]
    made: Callable[[Schedule], bool]
    of_sites: bool = True
    takes_fill: bool = False
    compared: bool = True
    published: bool = False
    exact: BeginPlanning | None = None


def lacks_sites(calibration: Calibration) -> str:
    """Return why no parts of a model can be skipped; empty if there are any."""
    if calibration.sites:
        return ""
    adapter = calibration.fingerprint.adapter or "that calibrated it"
    return (
        f"the adapter {adapter!r} names no sites, so no parts of this model can be skipped, only "
        "whole evaluations"
    )


def check_sites(calibration: Calibration) -> None:
    """Raise `ScheduleError` if the model that was calibrated has no sites."""
    if lacking := lacks_sites(calibration):
        raise ScheduleError(lacking)


def check_compute(compute: float) -> None:
    """Raise `ScheduleError` unless `compute` is a fraction in (0, 1]."""
    if not 0.0 < compute <= 1.0:
        raise ScheduleError(f"compute is a fraction in (0, 1], got {compute}")


def check_kept(schedule: Schedule, limits: Limits, title: str) -> None:
    """Raise `ScheduleError` if the schedule of a rule without limits does not keep to them.

    Args:
        schedule: Made by a rule that cannot be told what to keep to, but for the lag.
        limits: Pinned evaluations and distinct rows are looked at.
        title: Name of the rule, for the message.
    """
    rows = set(schedule.rows.values())
    if any(row[i] == 0 for row in rows for i in limits.computed):
        raise ScheduleError(
            f"{title} cannot keep `first` or `pinned`; plan for a target such as auto or site"
        )
    if limits.max_rows is not None and len(rows) > limits.max_rows:
        raise ScheduleError(f"{title} made {len(rows)} rows, over max_rows")


def fits(schedule: Schedule, limits: Limits) -> bool:
    """Return whether the cached tensors of a schedule keep to `max_bytes`."""
    return limits.max_bytes is None or schedule.predicted_bytes() <= limits.max_bytes


def predicted_error(schedule: Schedule) -> float:
    """Return the predicted error of a schedule that is known to have one."""
    assert schedule.prediction is not None
    return schedule.prediction.error


def or_none(make: Callable[P, Schedule], *args: P.args, **kwargs: P.kwargs) -> Schedule | None:
    """Return the schedule that `make` gives for the arguments, None where it cannot."""
    try:
        return make(*args, **kwargs)
    except ScheduleError:
        return None
