"""Where the points of the plot of error over compute are drawn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smoothcache_core.reports.page.labels import Box, place
from smoothcache_core.reports.page.values import ErrorPoint

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 12, 36
"""Size of the plot and of its margins, in units of the SVG, about pixels of a large screen."""

_LOGARITHMIC_FROM = 4.0
"""Ratio of the largest to the least error from which the axis is logarithmic, as in the picture of
`trade_off`."""

_ORDER = ("planned", "peer", "plain", "published", "ours")
"""Kinds of points in the order in which they are drawn, the last above the others."""

_NAMED = ("ours", "published")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point, where it is drawn.

    Attributes:
        point: What it shows.
        x: Place of its compute, in units of the SVG.
        y: Place of its error.
        ends: Places of the lower and the upper end of its interval, if that is known.
        predicted: Place of the error that was promised, if any was.
        label: Where its name is written, and how it is aligned there; None where there is no room.
    """

    point: ErrorPoint
    x: float
    y: float
    ends: tuple[float, float] | None
    predicted: float | None
    label: tuple[float, float, str] | None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Everything that is drawn.

    Attributes:
        marks: Points in the order in which they are drawn.
        lines: Points that belong together, as lists of coordinates, with their kind.
        across: Ticks of compute: place and text.
        up: Ticks of the error: place and text.
        kinds: Kinds of points that there are.
    """

    marks: Sequence[Mark]
    lines: Sequence[tuple[str, str]]
    across: Sequence[tuple[float, str]]
    up: Sequence[tuple[float, str]]
    kinds: Sequence[str]


def plot_of(points: Sequence[ErrorPoint]) -> Plot | None:
    """Return the plot of some points; None if there are none.

    On a logarithmic axis, points without any error have no place.

    Args:
        points: What is to be drawn.
    """
    errors = [error for point in points for error in (point.error, point.predicted or 0.0)]
    positive = [error for error in errors if error > 0.0]
    if not positive:
        return None
    logarithmic = max(positive) > _LOGARITHMIC_FROM * min(positive)
    up, ticks = _logarithmic(positive) if logarithmic else _linear(max(positive))
    shown = sorted(
        (point for point in points if point.error > 0.0 or not logarithmic),
        key=lambda point: (_ORDER.index(point.kind), point.compute),
    )
    return Plot(
        marks=_marks(shown, up),
        lines=_lines(shown, up),
        across=[(_across(tenth / 5), f"{tenth / 5:g}") for tenth in range(6)],
        up=[(up(value), f"{value:g}") for value in ticks],
        kinds=list(dict.fromkeys(point.kind for point in shown)),
    )


# ---------------------------------------------------------------------------- axes


def _across(compute: float) -> float:
    """Return the place of a compute fraction; the axis ends a little beyond 1."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * compute / 1.05, 1)


def _scale(low: float, high: float) -> Callable[[float], float]:
    """Return where values between these two are, the larger the higher; others at the edge."""
    length = HEIGHT - TOP - BOTTOM

    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return round(TOP + length * (1.0 - min(max(share, 0.0), 1.0)), 1)

    return place


def _linear(largest: float) -> tuple[Callable[[float], float], list[float]]:
    step = 10.0 ** math.floor(math.log10(largest))
    step *= next(part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if largest / (step * part) <= 6)
    ticks = [step * index for index in range(math.floor(1.06 * largest / step) + 1)]
    return _scale(0.0, 1.06 * largest), [float(f"{tick:.6g}") for tick in ticks]


def _logarithmic(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    low, high = math.log10(min(values)) - 0.15, math.log10(max(values)) + 0.15
    subs = (1, 2, 5) if high - low < 1.7 else (1, 3) if high - low < 3.5 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [float(f"{sub}e{decade}") for decade in decades for sub in subs]
    scale = _scale(low, high)
    inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return lambda value: scale(math.log10(value) if value > 0.0 else low), inside


# ---------------------------------------------------------------------------- points


def _marks(points: Sequence[ErrorPoint], up: Callable[[float], float]) -> list[Mark]:
    taken = [Box.around(_across(point.compute), up(point.error)) for point in points]
    marks = []
    for point in points:
        x, y = _across(point.compute), up(point.error)
        label = place(point.policy, x, y, taken, _ROOM) if point.kind in _NAMED else None
        known = point.low is not None and point.high is not None and point.kind != "plain"
        marks.append(
            Mark(
                point=point,
                x=x,
                y=y,
                ends=(up(point.low or 0.0), up(point.high or 0.0)) if known else None,
                predicted=up(point.predicted) if point.predicted else None,
                label=label,
            )
        )
    return marks


_ROOM = Box(left=LEFT, top=TOP, right=WIDTH - RIGHT, bottom=HEIGHT - BOTTOM)


def _lines(points: Sequence[ErrorPoint], up: Callable[[float], float]) -> list[tuple[str, str]]:
    """Return the lines through plans of one source, and through results of one other method."""
    groups: dict[tuple[str, str], list[str]] = {}
    for point in points:
        if point.kind in ("planned", "peer"):
            place = f"{_across(point.compute)},{up(point.error)}"
            groups.setdefault((point.kind, point.policy), []).append(place)
    return [(kind, " ".join(line)) for (kind, _), line in groups.items() if len(line) > 1]
