"""Clips for the page of a report: plain beside what every policy made of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from smoothcache_core import Report
from smoothcache_core.evaluation.comparing import compared_samples, png_media
from smoothcache_core.evaluation.sheets import MAGNIFIED
from smoothcache_core.reports.page import Comparison, Media
from torch import Tensor

from smoothcache_video.clip_files import clip_bytes, pixels_of
from smoothcache_video.clip_sheets import enlarged


def compared_clips(
    report: Report, captions: Sequence[str], *, fps: float, suffix: str
) -> list[Comparison]:
    """Return the clips that a report keeps, plain beside cached, with ten times the difference.

    Args:
        report: Holds clips, (n, frames, 1 or 3, height, width) for every policy, values in [0, 1].
        captions: What they show; as many are shown.
        fps: Frames per second, above 0.
        suffix: `".mp4"` or `".gif"`.

    Raises:
        OutputError: It is `".mp4"`, and PyAV is not installed.
    """
    show = partial(clip_media, fps=fps, suffix=suffix)

    def difference(plain: Tensor, other: Tensor, file: str, alt: str) -> Media:
        apart = (other - plain).abs().mul(MAGNIFIED).clamp(max=1.0)
        return show(apart, file, f"{alt}, times {MAGNIFIED}")

    return compared_samples(report, captions, show=show, difference=difference)


def clip_media(clip: Tensor, file: str, alt: str, *, fps: float, suffix: str) -> Media:
    """Return a clip as a file, small ones enlarged, with its middle frame as preview.

    Args:
        clip: (frames, 1 or 3, height, width), values in [0, 1].
        file: Where it will be, without a suffix.
        alt: What is to be seen.
        fps: Frames per second, above 0.
        suffix: `".mp4"` or `".gif"`.

    Raises:
        OutputError: It is `".mp4"`, and PyAV is not installed.
    """
    frames = pixels_of(enlarged(clip))
    height, width = frames[0].shape[:2]
    return Media(
        file=f"{file}{suffix}",
        alt=alt,
        content=clip_bytes(frames, suffix, fps=fps),
        preview=png_media(frames[len(frames) // 2], f"{file}-still", f"{alt}: a frame"),
        width=width,
        height=height,
    )
