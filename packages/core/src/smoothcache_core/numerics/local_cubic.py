"""Cubic interpolation of a path between the four points around, while it is walked."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, Self, TypeVar

_POINTS = 4
"""Points that a cubic goes through."""


class Point(Protocol):
    """What can be interpolated: a number, an array, or a tensor."""

    def __mul__(self, factor: float, /) -> Self:
        """Return it, scaled."""
        ...

    def __add__(self, other: Self, /) -> Self:
        """Return the sum of both."""
        ...


P = TypeVar("P", bound=Point)


class LocalCubic(Generic[P]):
    """Gives what a path has at wanted places, holding no more than four of its points.

    A wanted place that the path goes through is given exactly; others lie on the cubic through the
    two points before and the two behind, or the four at an end. Its error is of fourth order in the
    distance of points. Where a place is passed twice in a row, as by solvers that evaluate it once
    more, what was there last counts.

    Args:
        places: What is wanted, any number of them in any order.
        same: Two places that are no farther apart are one.
    """

    def __init__(self, places: Sequence[float], same: float) -> None:
        self._same = same
        self._wanted = list(dict.fromkeys(places))
        self._found: dict[float, P] = {}
        self._window: deque[tuple[float, P]] = deque(maxlen=_POINTS)

    def add(self, place: float, point: P) -> None:
        """Go on to the next point; places fall or rise all along."""
        if self._window and abs(self._window[-1][0] - place) <= self._same:
            self._window.pop()
        self._window.append((place, point))
        self._found.update({w: point for w in self._wanted if abs(w - place) <= self._same})
        if len(self._window) == _POINTS:
            self._interpolate(self._window[0][0], self._window[2][0])

    def end(self) -> dict[float, P]:
        """Return what was found, by the wanted places; those beyond the ends are missing."""
        if self._window:
            self._interpolate(self._window[0][0], self._window[-1][0])
        return self._found

    def _interpolate(self, one: float, other: float) -> None:
        """Fill in what is wanted between two places and not known; the middle of a window first."""
        low, high = min(one, other), max(one, other)
        for wanted in self._wanted:
            if wanted not in self._found and low < wanted < high:
                self._found[wanted] = self._at(wanted)

    def _at(self, wanted: float) -> P:
        total: P | None = None
        for place, point in self._window:
            weight = 1.0
            for other, _ in self._window:
                if other != place:
                    weight *= (wanted - other) / (place - other)
            total = point * weight if total is None else total + point * weight
        assert total is not None
        return total
