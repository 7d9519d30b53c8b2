"""Comparing schedules with the plain pipeline, and writing what came out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from smoothcache_core import (
    Calibration,
    Point,
    RecentlyDecoded,
    Report,
    ReportRow,
    Schedule,
    evaluate,
)

from smoothcache_image._adapters import adapter_for
from smoothcache_image._judge import digit_summaries, picture_metrics
from smoothcache_image._pictures import PictureRow, sample_sheet
from smoothcache_image._pipelines import denoiser_of
from smoothcache_image._sampling import Sampler, label_name
from smoothcache_image._tables import print_table

_SHOWN = 10

ABOUT = """
## What the numbers say

A sample is what the solver ends with: the latents, as they enter the autoencoder's decoder.
`rel_l2` compares them with those of the plain run from the same noise. `psnr_db` compares the
decoded pictures, values in [0, 1]. Seconds are those of one run, from the noise to the latents;
decoding is not among them.
"""
ABOUT_DIGITS = """
`accuracy` is the fraction of samples that the packaged classifier takes for the digit asked for.
`frechet` is the Frechet distance between its features of the samples and of the 1797 real digits of
scikit-learn; it falls with the number of samples, so compare it between policies only.
"""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A report, with the pictures and schedules that belong to it."""

    report: Report
    rows: Sequence[PictureRow]
    captions: Sequence[str]
    schedules: Mapping[str, Schedule]
    about: str

    def write(
        self,
        folder: Path,
        *,
        calibration: Calibration | None,
        title: str,
        points: Sequence[Point] = (),
        peers: Sequence[ReportRow] = (),
    ) -> Path:
        """Write the report folder and return the path of its `report.md`."""
        sheet = sample_sheet(self.rows, captions=self.captions, title=title)
        *_, text = self.report.write(
            folder,
            schedules=self.schedules,
            calibration=calibration,
            pictures={"samples.png": sheet},
            notes=self.about,
            points=points,
            peers=peers,
        )
        return text


def evaluate_pipeline(
    sampler: Sampler,
    schedules: Mapping[str, Schedule],
    *,
    seeds: Sequence[int],
    digits: bool,
    ours: Collection[str] = (),
    warmup: int = 1,
    calibration_samples: int | None = None,
) -> Evaluation:
    """Compare schedules with the plain run of a pipeline.

    Args:
        sampler: Samples the pipeline.
        schedules: What to compare, by name.
        seeds: Runs to make.
        digits: Whether the samples are the shipped model's digits, which can be recognised.
        ours: See `smoothcache_core.evaluate`.
        warmup: See `smoothcache_core.evaluate`.
        calibration_samples: See `smoothcache_core.evaluate`.

    Raises:
        SmoothCacheError: See `smoothcache_core.evaluate`.
    """
    decode = RecentlyDecoded(sampler.images, batch=sampler.batch)
    conditions = [each for seed in seeds for each in sampler.conditions_of(seed)]
    model = denoiser_of(sampler.pipe)
    report = evaluate(
        model,
        adapter_for(model),
        sampler,
        schedules,
        seeds=seeds,
        metrics=picture_metrics(decode),
        summaries=digit_summaries(decode, conditions) if digits else {},
        ours=ours,
        branches=sampler.branches,
        scheduler=sampler.pipe.scheduler,
        warmup=warmup,
        keep_samples=_SHOWN,
        calibration_samples=calibration_samples,
    )
    return Evaluation(
        report=report,
        rows=[
            PictureRow(
                name=row.policy, remark=_remark(row), pictures=decode(report.samples[row.policy])
            )
            for row in report.rows
        ],
        captions=[label_name(sampler.pipe, condition) for condition in conditions[:_SHOWN]],
        schedules=schedules,
        about=ABOUT + ABOUT_DIGITS if digits else ABOUT,
    )


def _remark(row: ReportRow) -> str:
    if row.source is None:
        return f"everything computed\n{row.seconds:.2f} s per run"
    compute = "" if row.compute is None else f"compute {row.compute:.2f}, "
    return f"{compute}{row.speedup:.2f}x as fast\nrelative L2 {row.rel_l2:.2g}"


def show_report(report: Report, console: Console) -> None:
    """Show the report as a table."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("policy", no_wrap=True)
    columns = [(title, [show(row) for row in report.rows]) for title, show in _COLUMNS]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in enumerate(report.rows):
        table.add_row(row.policy, *(cells[index] or "-" for _, cells in columns))
    print_table(table, console)


def _interval(row: ReportRow) -> str:
    """Return the interval of the mean error."""
    if row.rel_l2_low is None or row.rel_l2_high is None:
        return ""
    return f"{row.rel_l2_low:.2g}-{row.rel_l2_high:.2g}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


_COLUMNS: tuple[tuple[str, Callable[[ReportRow], str]], ...] = (
    ("compute", lambda row: _number(row.compute, ".3f")),
    ("seconds", lambda row: f"{row.seconds:.2f}"),
    ("faster", lambda row: f"{row.speedup:.2f}x"),
    ("predicted", lambda row: "" if row.prediction is None else f"{row.prediction.error:.2g}"),
    ("rel L2", lambda row: f"{row.rel_l2:.2g}" if row.source else ""),
    ("95 %", lambda row: _interval(row) if row.source else ""),
    ("PSNR", lambda row: _number(row.psnr_db, ".1f") if row.source else ""),
    ("accuracy", lambda row: _number(row.accuracy, ".1%")),
    ("Frechet", lambda row: _number(row.frechet, ".2f")),
)
