"""Seeing and hearing sounds: spectrograms, waveforms and WAV files, plain beside cached."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from smoothcache_core.errors import EvaluationError, warn
from smoothcache_core.files import write_atomically
from smoothcache_core.reports.style import COMPUTED, INK, clean, new_figure
from torch import Tensor

from smoothcache_audio.metrics import AUDIBLE_DB, FLOOR_DB, hop_length, spectrogram_db

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUIET, CACHED = "#777777", "#d55e00"
LARGEST_DIFFERENCE_DB = 30.0
"""Differences of levels above this are drawn alike: that is another sound."""

_FULL_SCALE = 32767  # the largest sample of a 16-bit file

_POINTS = 1500  # of a waveform, each a lowest and a highest value: more than a picture has pixels


@dataclass(frozen=True, kw_only=True)
class SoundRow:
    """The sounds of one policy.

    Attributes:
        name: Name of the policy.
        remark: What there is to say of it, on one or two lines.
        waveforms: (n, channels, samples), full scale at -1 and 1.
    """

    name: str
    remark: str
    waveforms: Tensor


# ---------------------------------------------------------------------------- spectrograms


def spectrogram_sheet(
    rows: Sequence[SoundRow], *, sample_rate: int, captions: Sequence[str], title: str
) -> Figure:
    """Draw the spectrograms of every policy and, on their right, what differs from the plain run.

    Levels are in decibels below the loudest part of the plain sound and end at -80 dB; what is
    quieter than that in both sounds is no difference. Channels are averaged (their powers).

    Args:
        rows: The plain run first, at least one; all with as many sounds of one length.
        sample_rate: Samples per second, above 0.
        captions: What each sound is.
        title: Title of the sheet.

    Raises:
        EvaluationError: The rows do not fit each other or the captions, or a value is not finite.
    """
    _check(rows, captions)
    count = len(captions)
    levels = np.stack([levels_of(row.waveforms, sample_rate) for row in rows])
    peaks = np.maximum(levels[0].max(axis=(1, 2)), FLOOR_DB + AUDIBLE_DB)[:, None, None]
    levels = np.maximum(levels - peaks, -AUDIBLE_DB)
    columns = count if len(rows) == 1 else 2 * count
    figure = new_figure(1.9 + min(3.0, 11.0 / columns) * columns, 1.6 + 1.15 * len(rows))
    panels = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    draw = _Spectrograms(sample_rate, rows[0].waveforms.shape[-1])
    for line, row in enumerate(rows):
        _name(panels[line, 0], row)
        for column in range(count):
            draw.levels(panels[line, column], levels[line, column])
        for column in range(count, columns):
            change = levels[line, column - count] - levels[0, column - count]
            draw.difference(panels[line, column], change if line else None)
    draw.finish(figure, panels, captions)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


class _Spectrograms:
    """Draws panels of one time and frequency range."""

    def __init__(self, sample_rate: int, samples: int) -> None:
        self._seconds = samples / sample_rate
        self._kilohertz = sample_rate / 2000.0
        self._frame = hop_length(sample_rate) / sample_rate
        self._images: dict[str, Any] = {}

    def levels(self, axes: Axes, levels: np.ndarray) -> None:
        """Draw how loud a sound is."""
        self._draw(axes, levels, "level", cmap="magma", vmin=-AUDIBLE_DB, vmax=0.0)

    def difference(self, axes: Axes, change: np.ndarray | None) -> None:
        """Draw how much louder (brown) or quieter (violet) a sound is, or leave room."""
        if change is None:
            axes.set_visible(False)
            return
        limit = LARGEST_DIFFERENCE_DB
        self._draw(axes, change, "difference", cmap="PuOr_r", vmin=-limit, vmax=limit)

    def _draw(self, axes: Axes, values: np.ndarray, what: str, **colors: Any) -> None:
        bins, frames = values.shape
        bin_ = self._kilohertz / (bins - 1)
        extent = (
            -self._frame / 2, (frames - 0.5) * self._frame, -bin_ / 2, self._kilohertz + bin_ / 2,
        )  # fmt: skip
        self._images[what] = axes.imshow(
            values, extent=extent, origin="lower", aspect="auto", **colors
        )
        axes.set_xlim(0.0, self._seconds)
        axes.set_ylim(0.0, self._kilohertz)
        axes.tick_params(length=2.5, labelsize=8, colors=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)

    def finish(self, figure: Figure, panels: np.ndarray, captions: Sequence[str]) -> None:
        """Write units, captions and the meaning of the colours."""
        from matplotlib.ticker import MaxNLocator

        count = len(captions)
        panels[0, 0].xaxis.set_major_locator(MaxNLocator(nbins=3))
        for axes in panels[-1]:
            axes.set_xlabel("s", fontsize=8, color=INK, labelpad=1)
        for axes in panels[:, 0]:
            axes.set_ylabel("kHz", fontsize=8, color=INK)
        for axes, caption in zip(panels[0, :count], captions, strict=True):
            axes.set_title(caption[:24], fontsize=9, color=QUIET)
        label = "level in dB, loudest of plain is 0"
        self._bar(figure, panels[:, :count], "level", label, extend="min")
        if len(panels) > 1:
            for axes, caption in zip(panels[1, count:], captions, strict=True):
                axes.set_title(caption[:24], fontsize=9, color=QUIET)
            self._bar(
                figure, panels[:, count:], "difference", "cached - plain in dB", extend="both"
            )

    def _bar(self, figure: Figure, panels: np.ndarray, what: str, label: str, extend: Any) -> None:
        bar = figure.colorbar(
            self._images[what], ax=list(panels.ravel()), location="bottom", extend=extend,
            shrink=0.8, aspect=15 * panels.shape[1], pad=0.02,
        )  # fmt: skip
        bar.set_label(label, fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=8, colors=INK, length=2.5)
        bar.outline.set_visible(False)


def levels_of(waveforms: Tensor, sample_rate: int) -> np.ndarray:
    """Return the levels of sounds, (n, frequencies, frames) in decibels, channels averaged.

    Args:
        waveforms: (n, channels, samples), full scale at -1 and 1.
        sample_rate: Samples per second, above 0.
    """
    powers = 10.0 ** (spectrogram_db(waveforms, sample_rate=sample_rate) / 10.0)
    return (10.0 * powers.mean(dim=1).log10()).numpy()


def _name(axes: Axes, row: SoundRow) -> None:
    """Write what a row shows on its left."""
    for text, offset, size, color in ((row.name, 9, 10, INK), (row.remark, -9, 8, QUIET)):
        axes.annotate(
            text, (0, 0.5), (-42, offset), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", size=size, color=color,
        )  # fmt: skip


def _check(rows: Sequence[SoundRow], captions: Sequence[str]) -> None:
    shapes = [tuple(row.waveforms.shape) for row in rows]
    if not rows or len(set(shapes)) > 1 or len(shapes[0]) != 3 or 0 in shapes[0]:
        raise EvaluationError(
            f"rows must be sounds (n, channels, samples) of one shape and not empty, got {shapes}"
        )
    if shapes[0][0] != len(captions):
        raise EvaluationError(f"{shapes[0][0]} sounds need as many captions, got {len(captions)}")
    broken = [row.name for row in rows if not row.waveforms.isfinite().all()]
    if broken:
        raise EvaluationError(f"sounds must be finite, but not all of {broken} are")


# ---------------------------------------------------------------------------- waveforms


def waveform_overlay(
    rows: Sequence[SoundRow], *, index: int, sample_rate: int, title: str
) -> Figure:
    """Draw one sound of every policy over the plain one, and below what it changed.

    Channels are averaged. The differences of all policies share a scale, which is their own.

    Args:
        rows: The plain run first, at least two, all with as many sounds of one length.
        index: Which of the sounds, from 0.
        sample_rate: Samples per second, above 0.
        title: Title of the figure.

    Raises:
        EvaluationError: The rows do not fit each other, there is no such sound, or a value is not
            finite.
    """
    _check(rows, [""] * (len(rows[0].waveforms) if rows else 0))
    if len(rows) < 2 or not 0 <= index < len(rows[0].waveforms):
        raise EvaluationError(
            f"an overlay needs the plain row and another, and a sound of theirs, got {len(rows)} "
            f"rows and index {index}"
        )
    plain, *others = [row.waveforms[index].double().mean(dim=0).cpu().numpy() for row in rows]
    figure = new_figure(9.0, 0.9 + 2.0 * len(others))
    panels = figure.subplots(
        2 * len(others), 1, sharex=True, squeeze=False, height_ratios=[2, 1] * len(others)
    )[:, 0]
    largest = _largest(plain, *others), _largest(*(other - plain for other in others))
    for line, (row, other) in enumerate(zip(rows[1:], others, strict=True)):
        over, below = panels[2 * line], panels[2 * line + 1]
        _draw_wave(over, plain, sample_rate, color=COMPUTED, label=rows[0].name)
        _draw_wave(over, other, sample_rate, color=CACHED, label=row.name, alpha=0.7)
        _draw_wave(below, other - plain, sample_rate, color=CACHED)
        over.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, fontsize=8, ncols=2,
            frameon=False,
        )  # fmt: skip
        over.set_title(f"{row.name}: {row.remark}".replace("\n", ", "), **_HEADING)
        for axes, limit, name in zip((over, below), largest, ("amplitude", "change"), strict=True):
            axes.set_ylim(-limit, limit)
            axes.set_ylabel(name, fontsize=8, color=INK)
    panels[-1].set_xlim(0.0, len(plain) / sample_rate)
    panels[-1].set_xlabel("time in s", fontsize=9, color=INK)
    figure.align_ylabels(panels)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


_HEADING: dict[str, Any] = {"fontsize": 9, "loc": "left", "color": INK}


def _draw_wave(axes: Axes, values: np.ndarray, sample_rate: int, **look: Any) -> None:
    """Draw a waveform; a long one by the lowest and highest value of each piece."""
    times = np.arange(len(values)) / sample_rate
    piece = len(values) // _POINTS
    if piece > 2:
        whole = len(values) // piece * piece
        pieces = values[:whole].reshape(-1, piece)
        values = np.stack([pieces.min(axis=1), pieces.max(axis=1)], axis=1).ravel()
        times = np.repeat(times[:whole:piece], 2)
    axes.plot(times, values, linewidth=0.7, **look)
    clean(axes)


def _largest(*waves: np.ndarray) -> float:
    """Return the limit of an axis that shows all of them."""
    return 1.05 * max(float(np.abs(wave).max()) for wave in waves) or 1.0


# ---------------------------------------------------------------------------- WAV files


def save_wav(waveform: Tensor, path: str | Path, *, sample_rate: int) -> Path:
    """Write a sound as a WAV file of 16 bits per sample, in one step.

    Args:
        waveform: (channels, samples), full scale at -1 and 1. What is beyond is clipped, with a
            warning.
        path: The file to write.
        sample_rate: Samples per second, above 0.

    Raises:
        EvaluationError: The shape or the rate is wrong, or a value is not finite.
    """
    sound = waveform.detach().cpu().double()
    if sound.ndim != 2 or not sound.numel() or not sample_rate > 0:
        raise EvaluationError(
            "a WAV file needs a waveform (channels, samples) that is not empty and a sample rate "
            f"above 0, got {tuple(sound.shape)} and {sample_rate}: {path}"
        )
    if not sound.isfinite().all():
        raise EvaluationError(f"a waveform with values that are not finite has no WAV file: {path}")
    beyond = int((sound.abs() > 1.0).sum())
    if beyond:
        warn(
            f"{beyond} of {sound.numel()} values are beyond full scale (up to "
            f"{float(sound.abs().max()):.3g}) and were clipped: {path}",
        )
    return write_atomically(path, wav_bytes(sound, sample_rate=sample_rate))


def wav_bytes(waveform: Tensor, *, sample_rate: int) -> bytes:
    """Return a sound as a WAV file of 16 bits per sample; what is beyond full scale is clipped.

    Args:
        waveform: (channels, samples), full scale at -1 and 1.
        sample_rate: Samples per second, above 0.
    """
    import soundfile

    sound = waveform.detach().cpu().double().clamp(-1.0, 1.0)
    values = (sound * _FULL_SCALE).round().to(torch.int16).T.numpy()
    buffer = io.BytesIO()
    soundfile.write(buffer, values, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
