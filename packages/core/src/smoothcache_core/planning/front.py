"""The trade-off front: plans of all targets over compute, and the one that is chosen."""

from dataclasses import dataclass

from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Point:
    """One schedule of a front.

    Attributes:
        name: How it was planned.
        schedule: The schedule.
        compute: Its compute fraction.
        error: Its predicted error.
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
        chosen: One of them.
        why: Why that one, in a sentence or two.
    """

    points: list[Point]
    chosen: Point
    why: str


def beats(one: Point, other: Point) -> bool:
    """Return whether one plan is no worse than the other in both respects, and better in one."""
    no_worse = one.compute <= other.compute and one.error <= other.error
    return no_worse and (one.compute, one.error) != (other.compute, other.error)
