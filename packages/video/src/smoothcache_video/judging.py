"""What becomes of clips: metrics, summaries, sheets, and files."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core import Report
from smoothcache_core.cli.evaluating import CLASS_COLUMNS, SHEET, described, number
from smoothcache_core.cli.modality import Judging
from smoothcache_core.cli.sampling import save_samples
from smoothcache_core.evaluation.sheets import compared_rows
from smoothcache_core.reports import ReportRow
from smoothcache_core.reports.names import file_stems
from smoothcache_core.reports.rows import PLAIN
from torch import Tensor

from smoothcache_video.clip_files import FileKind, chosen_suffix, clip_bytes, save_clip
from smoothcache_video.clip_media import compared_clips
from smoothcache_video.clip_sheets import frame_sheet, played, playing_sheet, side_by_side
from smoothcache_video.conditions import digit_and_direction
from smoothcache_video.metrics import clip_metrics, clip_summaries, moving_digit_summaries
from smoothcache_video.sampling import PromptSampler
from smoothcache_video.vbench import export_for_vbench

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smoothcache_video.classifier import ClipClassifier

PLAYING = "clips.gif"
CLIPS = "clips"
"""Folder of clips side by side, one file for each schedule."""

_SHOWN = 6  # clips of every policy in the sheet that plays
_CAPTION = 12  # characters of a line above a clip in it
_ROWS = 4  # clips in a file of clips side by side
_REAL, _REAL_SEED = 500, 0  # real clips that features are compared with, and the seed of them

ABOUT = """
## What the numbers say

A sample is what the solver ends with: the latents, as they enter the autoencoder's decoder.
`rel_l2` compares them with those of the plain run from the same noise. The other metrics compare
the decoded clips with the plain ones, values in [0, 1]: `psnr_db` and `ssim` are means over frames,
`motion_error` is the relative L2 distance of the differences of consecutive frames. `flicker`,
`motion` and `sharpness` are levels of a clip by itself: the mean absolute second difference of the
brightness in time, the first one, and that of neighbouring pixels; with `_ratio` over the plain
clip's: 1 is as before, more flicker is above 1, less motion and blur are below 1. Differences are
shown ten times as large. Seconds are those of one run, from the noise to the latents; decoding is
not among them.
"""
ABOUT_DIGITS = """
`accuracy` is the fraction of clips in which the packaged classifier sees the digit asked for,
`direction_accuracy` that in which it sees it move where it was told to. `frechet` is the Frechet
distance between its features of the clips and of 500 real ones; it falls with the number of
samples, so compare it between policies only.
"""


def clip_judging(
    sampler: PromptSampler, seeds: Sequence[int], digits: bool, *, kind: FileKind = "auto"
) -> Judging:
    """Return what becomes of clips.

    Args:
        sampler: How the clips are made, and of what prompts.
        seeds: Runs that are made.
        digits: Whether they are the shipped model's moving digits, which can be recognised.
        kind: What clips side by side are written as.

    Raises:
        OutputError: MP4 is asked for, and PyAV is not installed.
    """
    suffix = chosen_suffix(kind)
    prompts = [each for seed in seeds for each in sampler.conditions_of(seed)]
    summaries = {**clip_summaries(), **(_digit_summaries(prompts) if digits else {})}
    return Judging(
        metrics=clip_metrics(),
        summaries=summaries,
        about=ABOUT + ABOUT_DIGITS if digits else ABOUT,
        columns=(
            ("PSNR", lambda row: number(row.psnr_db, ".1f") if row.source else ""),
            ("SSIM", partial(_mean, "ssim", ".3f")),
            ("motion error", partial(_mean, "motion_error", ".2g")),
            ("flicker", partial(_mean, "flicker_ratio", ".2f")),
            *CLASS_COLUMNS,
            ("direction", lambda row: number(row.summaries.get("direction_accuracy"), ".1%")),
        ),
        shown=_SHOWN,
        pictures=partial(_pictures, sampler, prompts),
        write=partial(_write, sampler.frame_rate, suffix),
        comparisons=partial(
            compared_clips,
            captions=[sampler.label(prompt) for prompt in prompts[:_ROWS]],
            fps=sampler.frame_rate,
            suffix=suffix,
        ),
    )


def _digit_summaries(prompts: Sequence[str]) -> Mapping[str, Callable[[Tensor], float]]:
    classifier, real = _classifier_and_real_features()
    asked = [digit_and_direction(prompt) for prompt in prompts]
    return moving_digit_summaries(
        [digit for digit, _ in asked],
        [direction for _, direction in asked],
        classifier=classifier,
        real=real,
    )


@functools.cache
def _classifier_and_real_features() -> tuple[ClipClassifier, Tensor]:
    """Return the packaged classifier, and its features of real clips, (n, F)."""
    from smoothcache_video.classifier import load_clip_classifier
    from smoothcache_video.clips import real_clips

    classifier = load_clip_classifier()
    return classifier, classifier.features(real_clips(_REAL, seed=_REAL_SEED).videos)


def _mean(name: str, form: str, row: ReportRow) -> str:
    """Return the mean of a metric, but nothing for the plain run, whose metrics are trivial."""
    found = row.metrics.get(name)
    return "" if found is None or row.source is None else format(found.mean, form)


# ---------------------------------------------------------------------------- pictures


def _pictures(
    sampler: PromptSampler, prompts: Sequence[str], report: Report, title: str
) -> dict[str, Figure | bytes]:
    """Return a sheet of the frames of the first clip, and one of all clips that plays."""
    fps = sampler.frame_rate
    labels = [sampler.label(prompt) for prompt in prompts[:_SHOWN]]
    captions = [_in_two_lines(label) for label in labels]
    frames = compared_rows(report, described, shown=lambda clips: _coloured(clips[0]))
    clips = compared_rows(report, described, shown=lambda clips: _coloured(clips))
    played_fps = fps * len(played(len(frames[0].pictures))) / len(frames[0].pictures)
    playing = playing_sheet(clips, captions=captions, title=title)
    return {
        SHEET: frame_sheet(frames, fps=fps, title=f"{title}: {labels[0]}"),
        PLAYING: clip_bytes(playing, ".gif", fps=played_fps),
    }


def _in_two_lines(label: str) -> str:
    """Return a prompt as the caption of a narrow column."""
    return "\n".join(textwrap.wrap(label, _CAPTION)[:2])


def _coloured(clips: Tensor) -> Tensor:
    """Return clips of three channels, (..., 3, height, width)."""
    return clips.expand(*clips.shape[:-3], 3, -1, -1)


def _write(fps: float, suffix: str, report: Report, folder: Path) -> None:
    """Write the clips of every schedule beside the plain ones."""
    plain = report.samples[PLAIN][:_ROWS]
    stems = file_stems(row.policy for row in report.rows)
    for row in report.rows:
        if row.policy != PLAIN:
            joined = side_by_side(plain, report.samples[row.policy][:_ROWS])
            save_clip(joined, folder / CLIPS / f"{stems[row.policy]}{suffix}", fps=fps)


# ---------------------------------------------------------------------------- files


def save_clips(
    sampler: PromptSampler,
    seeds: Sequence[int],
    latents: Iterable[Tensor],
    folder: Path,
    *,
    kind: FileKind = "auto",
    vbench: bool = False,
) -> list[Path]:
    """Write the clips of some runs into a folder, and return the files.

    Args:
        sampler: Made the runs, and decodes them.
        seeds: Seeds of the runs.
        latents: Their final latents, (samples, ...) each.
        folder: Where to write; it exists.
        kind: What they are written as.
        vbench: Whether they are named as VBench reads them, with their prompts beside them.

    Raises:
        OutputError: MP4 is asked for, and PyAV is not installed.
    """
    if vbench:
        prompts = [each for seed in seeds for each in sampler.conditions_of(seed)]
        clips = [clip for part in latents for clip in sampler.decode(part)]
        return export_for_vbench(clips, prompts, folder, fps=sampler.frame_rate, kind=kind)
    return save_samples(
        sampler,
        seeds,
        latents,
        folder,
        save=partial(save_clip, fps=sampler.frame_rate),
        suffix=chosen_suffix(kind),
        name=sampler.label,
    )
