"""Comparing schedules with the plain pipeline, and writing what came out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from smoothcache_core import Calibration, Report, ReportRow, Schedule, evaluate

from smoothcache_image._adapters import adapter_for
from smoothcache_image._judge import RecentlyDecoded, digit_summaries, picture_metrics
from smoothcache_image._pictures import PictureRow, sample_sheet
from smoothcache_image._pipelines import denoiser_of
from smoothcache_image._sampling import Sampler, label_name

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

    def write(self, folder: Path, *, calibration: Calibration | None, title: str) -> Path:
        """Write the report folder and return the path of its `report.md`."""
        sheet = sample_sheet(self.rows, captions=self.captions, title=title)
        *_, text = self.report.write(
            folder,
            schedules=self.schedules,
            calibration=calibration,
            pictures={"samples.png": sheet},
            notes=self.about,
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
) -> Evaluation:
    """Compare schedules with the plain run of a pipeline.

    Args:
        sampler: Samples the pipeline.
        schedules: What to compare, by name.
        seeds: Runs to make.
        digits: Whether the samples are the shipped model's digits, which can be recognised.
        ours: See `smoothcache_core.evaluate`.
        warmup: See `smoothcache_core.evaluate`.

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
    return f"{compute}{row.speedup:.2f}x as fast\nrelative L2 {row.rel_l2:.3f}"


def show_report(report: Report, console: Console) -> None:
    """Show the report as a table."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("policy", overflow="fold")
    columns = [(title, [show(row) for row in report.rows]) for title, show in _COLUMNS]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in enumerate(report.rows):
        table.add_row(row.policy, *(cells[index] or "-" for _, cells in columns))
    console.print(table)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


_COLUMNS: tuple[tuple[str, Callable[[ReportRow], str]], ...] = (
    ("compute", lambda row: _number(row.compute, ".3f")),
    ("seconds", lambda row: f"{row.seconds:.2f}"),
    ("faster", lambda row: f"{row.speedup:.2f}x"),
    ("rel L2", lambda row: f"{row.rel_l2:.3f}" if row.source else ""),
    ("PSNR", lambda row: _number(row.psnr_db, ".1f") if row.source else ""),
    ("accuracy", lambda row: _number(row.accuracy, ".1%")),
    ("Frechet", lambda row: _number(row.frechet, ".2f")),
)
