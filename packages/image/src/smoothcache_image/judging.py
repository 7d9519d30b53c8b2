"""What becomes of pictures: metrics, summaries, the sheet of samples, and files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core import Report
from smoothcache_core.cli.evaluating import CLASS_COLUMNS, SHEET, described, number
from smoothcache_core.cli.modality import Judging
from smoothcache_core.cli.sampling import save_samples
from smoothcache_core.evaluation.comparing import compared_pictures
from smoothcache_core.evaluation.sheets import compared_rows, sample_sheet
from smoothcache_core.files import write_atomically
from torch import Tensor

from smoothcache_image.metrics import digit_summaries, picture_metrics
from smoothcache_image.sampling import PromptSampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 10  # pictures of every policy in the sheet: as many as there are digits

ABOUT = """
## What the numbers say

A sample is what the solver ends with: the latents, as they enter the autoencoder's decoder.
`rel_l2` compares them with those of the plain run from the same noise. `psnr_db` compares the
decoded pictures, values in [0, 1]. Differences are shown ten times as large. Seconds are those of
one run, from the noise to the latents; decoding is not among them.
"""
ABOUT_DIGITS = """
`accuracy` is the fraction of samples that the packaged classifier takes for the digit asked for.
`frechet` is the Frechet distance between its features of the samples and of the 1797 real digits of
scikit-learn; it falls with the number of samples, so compare it between policies only.
"""


def picture_judging(sampler: PromptSampler, seeds: Sequence[int], digits: bool) -> Judging:
    """Return what becomes of pictures.

    Args:
        sampler: How the pictures are made, and of what conditions.
        seeds: Runs that are made.
        digits: Whether they are the shipped model's digits, which can be recognised.
    """
    conditions = [each for seed in seeds for each in sampler.conditions_of(seed)]
    captions = [sampler.label(condition) for condition in conditions[:_SHOWN]]

    def sheet(report: Report, title: str) -> dict[str, Figure]:
        rows = compared_rows(report, described, shown=lambda pictures: pictures)
        return {SHEET: sample_sheet(rows, captions=captions, title=title)}

    return Judging(
        metrics=picture_metrics(),
        summaries=digit_summaries(conditions) if digits else {},
        about=ABOUT + ABOUT_DIGITS if digits else ABOUT,
        columns=(
            ("PSNR", lambda row: number(row.psnr_db, ".1f") if row.source else ""),
            *CLASS_COLUMNS,
        ),
        shown=_SHOWN,
        pictures=sheet,
        comparisons=partial(compared_pictures, captions=captions),
    )


def save_pictures(
    sampler: PromptSampler, seeds: Sequence[int], latents: Iterable[Tensor], folder: Path
) -> list[Path]:
    """Write the pictures of some runs into a folder, and return the files."""
    return save_samples(
        sampler, seeds, latents, folder, save=_save_picture, suffix=".png", name=sampler.label
    )


def _save_picture(picture: Tensor, path: Path) -> Path:
    """Write a picture as PNG, in one step."""
    from torchvision.utils import save_image

    buffer = io.BytesIO()
    save_image(picture, buffer, format="png")
    return write_atomically(path, buffer.getvalue())
