"""Clips as files: GIF by Pillow, MP4 by PyAV, which is an extra."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smoothcache_core.errors import OutputError
from smoothcache_core.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FileKind = Literal["auto", "gif", "mp4"]

EXTRA = "smoothcache-video[mp4]"

_QUALITY = (
    "12"  # of x264, where 0 is lossless and 23 its default: scores judge the clip, not the file
)


def has_mp4() -> bool:
    """Return whether MP4 files can be written: PyAV is installed."""
    return find_spec("av") is not None


def chosen_suffix(kind: FileKind) -> str:
    """Return `".mp4"` or `".gif"`; for `"auto"` MP4 where it can be written.

    Args:
        kind: What a user asked for.

    Raises:
        OutputError: MP4 was asked for, and PyAV is not installed.
    """
    if kind == "mp4" and not has_mp4():
        raise OutputError(
            f"MP4 files are written by PyAV, which is not installed: pip install '{EXTRA}', or ask "
            "for gif"
        )
    return ".mp4" if kind == "mp4" or (kind == "auto" and has_mp4()) else ".gif"


def save_clip(clip: Tensor, path: str | Path, *, fps: float) -> Path:
    """Write a clip as GIF or MP4, as the name of the file ends, in one step.

    Args:
        clip: (frames, channels, height, width), of 1 or 3 channels, values in [0, 1].
        path: Ends with `.gif` or `.mp4`.
        fps: Frames per second, above 0. GIF knows hundredths of a second only, so 24 become 25.

    Raises:
        OutputError: The file cannot be written, is to be of another kind, or is to be MP4 and PyAV
            is not installed.
    """
    return write_atomically(path, clip_bytes(pixels_of(clip), Path(path).suffix, fps=fps))


def clip_bytes(frames: Sequence[np.ndarray], suffix: str, *, fps: float) -> bytes:
    """Return pictures as a GIF or an MP4 file.

    Args:
        frames: Pictures of one size, (height, width, 3) uint8, at least one.
        suffix: `".gif"` or `".mp4"`.
        fps: Frames per second, above 0.

    Raises:
        OutputError: It is another suffix, or is `".mp4"` and PyAV is not installed, or the frames
            per second are not above 0.
    """
    writers: dict[str, Callable[..., bytes]] = {".gif": _gif, ".mp4": _mp4}
    if suffix not in writers:
        raise OutputError(f"clips are written as .gif or .mp4, not as {suffix!r}")
    if not fps > 0:
        raise OutputError(f"a clip has more than 0 frames per second, not {fps}")
    return writers[suffix](frames, fps)


def pixels_of(clip: Tensor) -> list[np.ndarray]:
    """Return the frames of a clip as pictures, (height, width, 3) uint8.

    Args:
        clip: (frames, channels, height, width), of 1 or 3 channels, values in [0, 1].
    """
    coloured = clip.detach().cpu().float().expand(-1, 3, -1, -1)
    return list((coloured.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())


def _gif(frames: Sequence[np.ndarray], fps: float) -> bytes:
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=10 * max(round(100 / fps), 2),  # players take less for a tenth of a second
        loop=0,
        disposal=1,
    )
    return buffer.getvalue()


def _mp4(frames: Sequence[np.ndarray], fps: float) -> bytes:
    chosen_suffix("mp4")
    import av

    height, width = frames[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt, stream.options = "yuv420p", {"crf": _QUALITY}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(_even(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def _even(frame: np.ndarray) -> np.ndarray:
    """Return a picture of an even number of rows and columns, which H.264 wants."""
    import numpy as np

    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
