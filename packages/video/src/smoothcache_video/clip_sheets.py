"""Pictures of clips: a sheet of frames, a sheet that plays, and clips side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from smoothcache_core.evaluation.sheets import MAGNIFIED, PictureRow, sample_sheet, strip_of
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 8  # frames of a clip in a sheet: more are too small to be seen
_PLAYED = 48  # frames of a sheet that plays, two seconds at 24 a second: GIF files are large
_DPI = 80  # of a sheet that plays; text of 9 points is just read
_LEAST_SIDE = 96  # pixels of clips side by side, which smaller ones are enlarged to
_GAP = 4  # white pixels between them


def frame_sheet(rows: Sequence[PictureRow], *, fps: float, title: str) -> Figure:
    """Draw the frames of one clip in a row for each policy, in the order of time.

    Args:
        rows: At least one; their pictures are the frames of a clip, (frames, 3, height, width).
            Of many frames, eight that are evenly spaced are drawn.
        fps: Frames per second.
        title: Title of the sheet.
    """
    places = _evenly(len(rows[0].pictures), _COLUMNS)
    drawn = [replace(row, pictures=row.pictures[places]) for row in rows]
    captions = [f"{place / fps:.2f} s" for place in places]
    return sample_sheet(drawn, captions=captions, title=title)


def playing_sheet(
    rows: Sequence[PictureRow], *, captions: Sequence[str], title: str
) -> list[np.ndarray]:
    """Draw a sheet of clips, a column for each, frame by frame.

    Args:
        rows: At least one; their pictures are clips, (n, frames, 3, height, width). Of many frames,
            48 that are evenly spaced are drawn.
        captions: What each column shows.
        title: Title of the sheet.

    Returns:
        Pictures, (height, width, 3) uint8, one for each frame that is drawn.
    """
    places = played(len(rows[0].pictures[0]))
    first = [replace(row, pictures=row.pictures[:, 0]) for row in rows]
    figure = sample_sheet(first, captions=captions, title=title)
    figure.set_dpi(_DPI)
    return [_drawn(figure, [strip_of(row.pictures[:, place]) for row in rows]) for place in places]


def played(frames: int) -> list[int]:
    """Return which frames of a clip a sheet plays: all, or 48 that are evenly spaced."""
    return _evenly(frames, _PLAYED)


def side_by_side(plain: Tensor, other: Tensor) -> Tensor:
    """Put clips, what they became, and the difference beside each other, a row for each clip.

    Args:
        plain: Clips of the plain run, (n, frames, channels, height, width), values in [0, 1].
        other: What they became, same shape.

    Returns:
        One clip, (frames, 3, height, width): plain, other, and ten times the difference.
    """
    apart = (other - plain).abs().mul(MAGNIFIED).clamp(max=1.0)
    rows = torch.stack([plain, other, apart], dim=1).expand(-1, -1, -1, 3, -1, -1)
    spaced = functional.pad(enlarged(rows), (0, _GAP, 0, _GAP), value=1.0)
    joined = spaced.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)
    return joined[..., :-_GAP, :-_GAP]


def enlarged(clips: Tensor) -> Tensor:
    """Return clips with their pixels repeated, if they have less than 96 on a side.

    Args:
        clips: (..., height, width), values in [0, 1].
    """
    factor = -(-_LEAST_SIDE // min(clips.shape[-2:]))
    return clips.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


def _drawn(figure: Figure, strips: Sequence[np.ndarray]) -> np.ndarray:
    """Return a sheet with other pictures in its rows, (height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    for axes, strip in zip(figure.axes, strips, strict=True):
        axes.images[0].set_data(strip)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _evenly(count: int, most: int) -> list[int]:
    """Return at most so many places among `count`, evenly spaced, the first and the last too."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
