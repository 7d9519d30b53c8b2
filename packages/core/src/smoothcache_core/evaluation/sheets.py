"""Sheets of pictures: one row per policy, the same samples below each other."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn import functional

from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import PLAIN, ReportRow
from smoothcache_core.reports.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUIET = "#777777"
"""Colour of text beside the main thing."""

MAGNIFIED = 10
"""Factor of differences in sheets: errors of 0.002 and of 0.05 look alike otherwise."""

_LETTER = 0.072  # inches of a letter of a caption, of size 9, as wide as most get
_LINE = 0.15  # inches of a line of it
_LINES = 3  # of a caption, at most
_LARGEST = 256  # pixels of one picture in the sheet


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """The samples of one policy.

    Attributes:
        name: Name of the policy.
        remark: What there is to say of it, on one or two lines.
        pictures: (n, 3, height, width), values in [0, 1].
    """

    name: str
    remark: str
    pictures: Tensor


def compared_rows(
    report: Report, remark: Callable[[ReportRow], str], *, shown: Callable[[Tensor], Tensor]
) -> list[PictureRow]:
    """Return the samples of every policy, and below them how they differ from the plain ones.

    Args:
        report: Holds samples, with values in [0, 1].
        remark: Says what there is to say of a policy.
        shown: Returns the pictures to show of its samples, (n, 3, height, width).
    """
    plain = shown(report.samples[PLAIN])
    rows = []
    for row in report.rows:
        pictures = shown(report.samples[row.policy])
        rows.append(PictureRow(name=row.policy, remark=remark(row), pictures=pictures))
        if row.policy != PLAIN:
            apart = (pictures - plain).abs().mul(MAGNIFIED).clamp(max=1.0)
            about = f"|{row.policy} - plain| x {MAGNIFIED}"
            rows.append(PictureRow(name="", remark=about, pictures=apart))
    return rows


def sample_sheet(rows: Sequence[PictureRow], *, captions: Sequence[str], title: str) -> Figure:
    """Draw rows of samples, the same sample in the same column.

    Args:
        rows: At least one, all with as many pictures of one size.
        captions: What each column shows; wrapped to the width of a column, on up to three lines.
        title: Title of the sheet.
    """
    from matplotlib.figure import Figure

    strips = [strip_of(row.pictures) for row in rows]
    height, width = strips[0].shape[:2]
    inches = min(9.0, 0.85 * len(captions))
    tall = inches * height / width
    above = [_wrapped(caption, inches / len(captions)) for caption in captions]
    top = 0.42 + _LINE * max(2, *(len(lines) for lines in above))
    size = inches + 2.45, (tall + 0.09) * len(rows) + 0.13 + top
    figure = Figure(figsize=size, facecolor="white")
    grid = figure.subplots(
        len(rows),
        1,
        squeeze=False,
        gridspec_kw={
            "left": 2.2 / (inches + 2.45),
            "right": 1 - 0.2 / (inches + 2.45),
            "top": 1 - top / figure.get_figheight(),
            "bottom": 0.1 / figure.get_figheight(),
            "hspace": 0.09 / tall,
        },
    )
    for axes, row, strip in zip(grid.ravel(), rows, strips, strict=True):
        _draw_row(axes, row, strip)
    _draw_captions(grid[0, 0], above, width)
    figure.text(0.2 / (inches + 2.45), 1 - 0.3 / figure.get_figheight(), title, color=INK, size=11)
    return figure


def strip_of(pictures: Tensor) -> np.ndarray:
    """Put pictures side by side with white between them, those of many pixels made smaller.

    Args:
        pictures: (n, 3, height, width), values in [0, 1].

    Returns:
        (height, width, 3), values in [0, 1].
    """
    largest = max(pictures.shape[-2:])
    if largest > _LARGEST:
        scale = _LARGEST / largest
        pictures = functional.interpolate(pictures, scale_factor=scale, mode="area")
    gap = max(1, pictures.shape[-1] // 24)
    spaced = functional.pad(pictures, (0, gap), value=1.0)
    strip = spaced.permute(2, 0, 3, 1).flatten(1, 2)
    return strip[:, :-gap].numpy()


def _draw_row(axes: Axes, row: PictureRow, strip: np.ndarray) -> None:
    axes.imshow(strip, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    _write(axes, row.name, offset=9, size=10.5, color=INK)
    _write(axes, row.remark, offset=-10, size=8.5, color=QUIET)


def _write(axes: Axes, text: str, *, offset: float, size: float, color: str) -> None:
    """Write on the left of a row, `offset` points above its middle."""
    axes.annotate(
        text, (0, 0.5), (-10, offset), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="center", size=size, color=color,
    )  # fmt: skip


def _wrapped(caption: str, inches: float) -> list[str]:
    """Return a caption in lines as long as a column is wide, without those that are too many."""
    letters = max(6, int(inches / _LETTER))
    lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, letters)]
    return lines[:_LINES]


def _draw_captions(axes: Axes, captions: Sequence[Sequence[str]], width: int) -> None:
    each = (width + 1) / len(captions)
    for index, lines in enumerate(captions):
        place = (index + 0.5) * each
        axes.annotate(
            "\n".join(lines), (place, 0), (0, 4), textcoords="offset points", ha="center",
            va="bottom", size=9, color=QUIET, annotation_clip=False,
        )  # fmt: skip
