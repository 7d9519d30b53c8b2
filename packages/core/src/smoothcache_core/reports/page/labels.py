"""Places for the names of points, where they hide nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_LETTER, _LINE = 7.2, 15.0  # width and height of text of 13 units, as wide as it gets
_APART = 9.0  # from the middle of a point to its name


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of the plot, in units of the SVG; the top is where `y` is least."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float) -> Self:
        """Return what a point takes."""
        return cls(left=x - 6, top=y - 6, right=x + 6, bottom=y + 6)

    def meets(self, other: Self) -> bool:
        """Return whether they have anything in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def inside(self, other: Self) -> bool:
        """Return whether it is wholly within another."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


def place(
    text: str, x: float, y: float, taken: list[Box], room: Box
) -> tuple[float, float, str] | None:
    """Return where a name is written so that it meets nothing, and take that place.

    Args:
        text: The name to be written.
        x: Where the point is that it belongs to.
        y: Its other coordinate.
        taken: What is there already; the name is added.
        room: Where it must be.

    Returns:
        Its coordinates, and whether it begins, ends or has its middle there; None if there is no
        place for it.
    """
    width = _LETTER * len(text)
    for offset in (0.0, -_LINE, _LINE, -1.7 * _LINE, 1.7 * _LINE):
        for anchor, left in _SIDES.items():
            near = anchor != "middle" or offset
            at = x if anchor == "middle" else x + _APART if anchor == "start" else x - _APART
            box = Box(
                left=left(at, width),
                top=y + offset - _LINE / 2,
                right=left(at, width) + width,
                bottom=y + offset + _LINE / 2,
            )
            if near and box.inside(room) and not any(box.meets(each) for each in taken):
                taken.append(box)
                return at, round(y + offset + 4.0, 1), anchor
    return None


_SIDES: dict[str, Callable[[float, float], float]] = {
    "start": lambda at, width: at,
    "end": lambda at, width: at - width,
    "middle": lambda at, width: at - width / 2,
}
"""Left edge of a text of a width, by which of its points is given."""
