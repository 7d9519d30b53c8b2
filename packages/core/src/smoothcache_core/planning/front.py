"""The trade-off front: plans of all targets over compute, and the one that is chosen."""

from dataclasses import dataclass

from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Point:
    """One schedule of a front.

    Attributes:
        name: Name of the source that planned it, see `sources.SOURCES`.
        schedule: The schedule that was planned.
        compute: Its MACs over those of the plain run, in (0, 1].
        error: Its predicted relative L2 error of the final sample, at least 0.
        best: Whether no other point has both less compute and less error.
    """

    name: str
    schedule: Schedule
    compute: float
    error: float
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `auto` found.

    Attributes:
        points: Schedules of all targets for many budgets, by falling compute.
        chosen: The one of them that computes least within the error that was asked for.
        why: Why that one, in a sentence or two.
    """

    points: list[Point]
    chosen: Point
    why: str


def beats(one: Point, other: Point) -> bool:
    """Return whether one plan is no worse than the other in both respects, and better in one."""
    no_worse = one.compute <= other.compute and one.error <= other.error
    return no_worse and (one.compute, one.error) != (other.compute, other.error)
