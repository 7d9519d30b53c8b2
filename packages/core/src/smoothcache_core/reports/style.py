"""How pictures look, and how they are saved."""

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 130
"""Pixels per inch: text of 8 points is read without zooming, and files stay small."""


COMPUTED, REUSED, INK = "#27496d", "#dfe8f0", "#333333"
"""Colours of computed and reused cells, and of text."""


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def wrapped(title: str, width: float) -> str:
    """Break a title of 11 points into lines of `width` inches."""
    return textwrap.fill(title, width=max(20, int(width * 11.5)))


def png(figure: "Figure") -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as a PNG file, in one step.

    Example:
        >>> from smoothcache_core.reports import skip_map
        >>> save_figure(skip_map(schedule, calibration.sites), "skip-map.png").name
        'skip-map.png'

    Args:
        figure: Any figure of matplotlib.
        path: Where to; folders that are not there are made.

    Returns:
        The path.
    """
    return write_atomically(path, png(figure))


def clean(axes: "Axes") -> None:
    """Make the frame of some axes light."""
    axes.tick_params(length=2.5, labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8c0c8")
