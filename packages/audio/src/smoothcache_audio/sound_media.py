"""Sounds for the page of a report, with spectrograms: plain beside what policies made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from smoothcache_core import Report
from smoothcache_core.evaluation.comparing import compared_samples, png_media
from smoothcache_core.reports.page import Comparison, Media
from smoothcache_core.reports.rows import PLAIN
from torch import Tensor

from smoothcache_audio.metrics import AUDIBLE_DB, FLOOR_DB
from smoothcache_audio.sounds import LARGEST_DIFFERENCE_DB, levels_of, wav_bytes

_LONGEST = 60.0  # seconds of all sounds of a policy together: half a minute of stereo is 5 MB
_WIDEST = 800  # pixels of a spectrogram; of longer sounds, frames are averaged


def compared_sounds(
    report: Report, captions: Sequence[str], *, sample_rate: int
) -> list[Comparison]:
    """Return the sounds that a report keeps, plain beside cached, with their spectrograms.

    Levels are in decibels below the loudest part of all plain sounds that are shown, down to -80.
    Differences go from -30 dB, violet, to 30 dB, brown; what is inaudible in both is none.

    Args:
        report: Holds sounds, (n, channels, samples) for every policy, full scale at -1 and 1.
        captions: What they are; as many are shown, of long sounds fewer.
        sample_rate: Samples per second, above 0.
    """
    seconds = report.samples[PLAIN].shape[-1] / sample_rate
    captions = captions[: max(1, int(_LONGEST / seconds))]
    loudest = float(levels_of(report.samples[PLAIN][: len(captions)], sample_rate).max())
    peak = max(loudest, FLOOR_DB + AUDIBLE_DB)

    def levels(sound: Tensor) -> np.ndarray:
        found = levels_of(sound[None], sample_rate)[0] - peak
        return _narrowed(np.maximum(found, -AUDIBLE_DB))

    def show(sound: Tensor, file: str, alt: str) -> Media:
        return Media(
            file=f"{file}.wav",
            alt=alt,
            content=wav_bytes(sound, sample_rate=sample_rate),
            preview=_drawn(
                1.0 + levels(sound) / AUDIBLE_DB, "magma", file, f"spectrogram of {alt}"
            ),
        )

    def difference(plain: Tensor, other: Tensor, file: str, alt: str) -> Media:
        change = (levels(other) - levels(plain)) / (2.0 * LARGEST_DIFFERENCE_DB)
        return _drawn(0.5 + change, "PuOr_r", file, f"spectrogram of {alt}")

    return compared_samples(report, captions, show=show, difference=difference)


def _narrowed(levels: np.ndarray) -> np.ndarray:
    """Return levels of at most 800 frames."""
    each = -(-levels.shape[1] // _WIDEST)
    whole = levels.shape[1] // each * each
    return levels[:, :whole].reshape(len(levels), -1, each).mean(axis=2)


def _drawn(values: np.ndarray, colors: str, file: str, alt: str) -> Media:
    """Return values in [0, 1], (frequencies, frames), as a picture; low frequencies are below."""
    from matplotlib import colormaps

    pixels = colormaps[colors](np.clip(values, 0.0, 1.0), bytes=True)
    return png_media(np.ascontiguousarray(pixels[::-1, :, :3]), file, alt)
