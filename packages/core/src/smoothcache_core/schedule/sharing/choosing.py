"""Choosing one schedule of a shared folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.sharing.index import Entry, Index


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a schedule is to be like; one thing at most.

    Attributes:
        speedup: Least speed-up by MACs, at least 1.
        compute: Largest fraction of the plain run's MACs, in (0, 1].
        error: Largest relative L2 error of the final sample, above 0.
        name: Name of the schedule itself.

    Raises:
        ScheduleError: More than one is given, or one is out of its range.
    """

    speedup: float | None = None
    compute: float | None = None
    error: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        given = [key for key, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise ScheduleError(f"a schedule is chosen by one of these, not by {given}")
        if self.speedup is not None and not 1.0 <= self.speedup < float("inf"):
            raise ScheduleError(f"speedup is at least 1, got {self.speedup}")
        if self.compute is not None and not 0.0 < self.compute <= 1.0:
            raise ScheduleError(f"compute is in (0, 1], got {self.compute}")
        if self.error is not None and not self.error > 0.0:
            raise ScheduleError(f"error is above 0, got {self.error}")

    @property
    def budget(self) -> float:
        """The largest compute fraction that is wanted."""
        return 1.0 / self.speedup if self.speedup is not None else self.compute or 1.0

    def __str__(self) -> str:
        if self.name is not None:
            return f"of the name {self.name!r}"
        if self.error is not None:
            return f"whose error is known to be at most {self.error:g}"
        if self.speedup is not None:
            return f"of a speed-up of at least {self.speedup:g}"
        return f"that computes at most {self.budget:g}"


def chosen(index: Index, wish: Wish, where: str) -> Entry:
    """Return the schedule that is least off within a budget, or computes least within an error.

    Args:
        index: What there is.
        wish: What it is to be like; without any wish there must be one only.
        where: What it is the index of, for the message.

    Raises:
        ScheduleError: None is so, or several are and nothing says which; lists what there is.
    """
    entries = index.schedules
    if wish == Wish():
        if len(entries) == 1:
            return entries[0]
        raise ScheduleError(
            f"{where} has several schedules: say which by speedup, compute, error or name; "
            f"it has {listed(entries)}"
        )
    fitting = [entry for entry in entries if _fits(entry, wish)]
    if not fitting:
        raise ScheduleError(f"{where} has no schedule {wish}; it has {listed(entries)}")
    return min(fitting, key=_by_compute if wish.error is not None else _by_error)


def _fits(entry: Entry, wish: Wish) -> bool:
    if wish.name is not None:
        return entry.name == wish.name
    if wish.error is not None:
        return entry.known is not None and entry.known.error <= wish.error
    return entry.compute is not None and entry.compute <= wish.budget


def _by_error(entry: Entry) -> tuple[float, float]:
    """Order by error; where none is known, what computes more is less off."""
    error = float("inf") if entry.known is None else entry.known.error
    return error, -(entry.compute or 0.0)


def _by_compute(entry: Entry) -> tuple[float, float]:
    error = 0.0 if entry.known is None else entry.known.error
    return entry.compute or 1.0, error


def listed(entries: Sequence[Entry]) -> str:
    """Return what there is, in a line."""
    return ", ".join(_shown(entry) for entry in entries)


def _shown(entry: Entry) -> str:
    parts = [] if entry.speedup is None else [f"{entry.speedup:.2f}x"]
    if entry.known is not None:
        how = "measured" if entry.measured else "predicted"
        parts.append(f"error {entry.known.error:.2g} {how}")
    return f"{entry.name} ({', '.join(parts)})" if parts else entry.name
