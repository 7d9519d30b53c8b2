"""What a modality package gives to the command line. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from smoothcache_core import Report
    from smoothcache_core.cli.source import Source
    from smoothcache_core.reports import ReportRow
    from smoothcache_core.reports.page import Comparison


def _no_comparisons(report: Report) -> Sequence[Comparison]:
    """Return nothing: samples of this modality are not shown on the page."""
    del report
    return ()


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What becomes of the samples of some runs.

    Attributes:
        metrics: Functions of plain and other samples, (n, ...) each, that give one value per
            sample, (n,), by name.
        summaries: Functions of all samples of a policy, (n, ...), that give a number, by name.
        about: What the numbers say, for the report.
        columns: Titles of further columns of the table, and their cells.
        shown: Samples of every policy that `pictures` and `write` need.
        pictures: Makes pictures from the report, which holds samples, and a title, by file name:
            figures, or the bytes of files; the first is the one to look at.
        write: Writes what else there is of a report into a folder.
        comparisons: Makes samples for the page from the report, plain beside cached.
    """

    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    summaries: Mapping[str, Callable[[Tensor], float]]
    about: str
    columns: Sequence[tuple[str, Callable[[ReportRow], str]]]
    shown: int
    pictures: Callable[[Report, str], Mapping[str, Figure | bytes]]
    write: Callable[[Report, Path], None] | None = None
    comparisons: Callable[[Report], Sequence[Comparison]] = _no_comparisons


@dataclass(frozen=True, kw_only=True)
class Demo:
    """How a demo shows itself.

    Attributes:
        opening: What is sampled by what.
        title: What is sampled, the first word of a title.
        legend: What the columns of the modality mean.
        files: What it writes, by name within its folder, and what that is.
        options: Fields of the source that can be set.
        samples: Samples to judge with, by default.
        calibration_samples: Samples to calibrate with, by default.
        computes: Compute fractions to plan for, by default.
        batch: Most samples of one run that judges.
        duration: How long it takes on a CPU.
    """

    opening: str
    title: str
    legend: str
    files: Mapping[str, str]
    options: Sequence[str] = ("steps", "solver", "guidance", "seed")
    samples: int
    calibration_samples: int = 10
    computes: tuple[float, ...] = (0.5, 0.35, 0.25)
    batch: int = 50
    duration: str = "a minute or two"


@dataclass(frozen=True, kw_only=True)
class Modality:
    """What the command line of a modality is about.

    Attributes:
        command: Name of the program.
        models: What its models are, for the help.
        units: What samples are called, such as `"pictures"`.
        source: What it samples.
        demo: How its demo shows itself.
        judging: Returns what becomes of the samples of a sampler of a source, from some seeds.
        save: Writes their final latents, decoded, into a folder, and returns the files.
        commands: Commands that only this modality has, subclasses of `Command`.
        examples: Command lines for the help, by command, without the name of the program.
    """

    command: str
    models: str
    units: str
    source: type[Source]
    demo: Demo
    judging: Callable[[Any, Any, Sequence[int]], Judging]
    save: Callable[[Any, Any, Sequence[int], Sequence[Tensor], Path], list[Path]]
    commands: Sequence[type[Any]] = ()
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
