"""Comparing schedules with plain runs, and what the command `evaluate` does."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from smoothcache_core import Calibration, Report, Schedule, evaluate
from smoothcache_core.cli.commands.evaluate import Evaluate
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.loading import sampler_for
from smoothcache_core.cli.modality import Judging, Modality
from smoothcache_core.cli.shared import all_opened
from smoothcache_core.cli.source import Source
from smoothcache_core.cli.tables import print_table, source_of
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.planning import Planner, Point
from smoothcache_core.reports import ReportRow, load_peers
from smoothcache_core.reports.folder import write_report
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.schedule.provenance import Aim

SHEET = "samples.png"
"""Name of the picture to look at first."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A report, with what it was made by."""

    report: Report
    judging: Judging
    schedules: Mapping[str, Schedule]

    def write(
        self,
        folder: Path,
        *,
        calibration: Calibration | None,
        title: str,
        points: Sequence[Point] = (),
        peers: Sequence[ReportRow] = (),
        command: str = "",
    ) -> Path:
        """Write the report folder and return the path of its page.

        Args:
            folder: Where to write.
            calibration: Errors to draw, and the sites of the schedules.
            title: What was sampled.
            points: Plans to draw beside what was measured.
            peers: Other methods' rows to draw beside them.
            command: What samples with a schedule, up to the file of the schedule.
        """
        if self.judging.write is not None:
            self.judging.write(self.report, folder)
        files = schedule_files(self.schedules)
        *_, page = write_report(
            self.report,
            folder,
            schedules=self.schedules,
            calibration=calibration,
            pictures=self.judging.pictures(self.report, title),
            notes=self.judging.about,
            points=points,
            peers=peers,
            title=title,
            comparisons=self.judging.comparisons(self.report),
            lines={name: typed(command, folder / file) for name, file in files.items()},
        )
        return page

    def show(self, console: Console) -> None:
        """Show the report as a table."""
        rows = self.report.rows
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("policy", no_wrap=True)
        columns = [
            (title, [show(row) for row in rows])
            for title, show in (*_COLUMNS, *self.judging.columns)
        ]
        columns = [(title, cells) for title, cells in columns if any(cells)]
        for title, _ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for index, row in enumerate(rows):
            table.add_row(row.policy, *(cells[index] or "-" for _, cells in columns))
        print_table(table, console)


def evaluated(
    sampler: ConditionedSampler,
    schedules: Mapping[str, Schedule],
    judging: Judging,
    *,
    seeds: Sequence[int],
    ours: Collection[str] = (),
    warmup: int = 1,
    calibration_samples: int | None = None,
    exact: bool | None = None,
) -> Evaluation:
    """Compare schedules with the plain runs of a sampler.

    Args:
        sampler: How samples are made.
        schedules: What to compare, by name.
        judging: What becomes of the samples.
        seeds: Runs to make.
        ours: Names of the policies that are this library's own methods.
        warmup: Untimed runs of every policy before the timed ones, at least 0.
        calibration_samples: How many samples the schedules were calibrated with, if known.
        exact: Whether to measure distances from the exact solution; see `evaluate`.

    Raises:
        SmoothCacheError: See `smoothcache_core.evaluate`.
    """
    report = evaluate(
        sampler,
        schedules,
        seeds=seeds,
        metrics=judging.metrics,
        summaries=judging.summaries,
        ours=ours,
        warmup=warmup,
        keep_samples=judging.shown,
        calibration_samples=calibration_samples,
        exact=exact,
    )
    return Evaluation(report=report, judging=judging, schedules=schedules)


def typed(command: str, schedule: Path) -> str:
    """Return the line to type to sample with a schedule.

    Args:
        command: Its words up to the file.
        schedule: The file of the schedule.
    """
    return f"{command} {shlex.quote(str(schedule))}"


def sampling_command(source: Source, modality: Modality) -> str:
    """Return what samples the same model with a schedule, up to the file of the schedule.

    Args:
        source: What was sampled.
        modality: Whose command line it is.
    """
    shipped, *_ = source.SHIPPED
    chosen = {
        "--model": "" if source.model == shipped else source.model,
        "--solver": source.chosen_solver,
        "--guidance": "" if source.guidance is None else f"{source.guidance:g}",
    }
    words = [word for name, value in chosen.items() if value for word in (name, value)]
    return shlex.join([modality.command, "sample", *words, "--schedule"])


def described(row: ReportRow) -> str:
    """Return what there is to say of a policy beside its samples, on two lines."""
    if row.source is None:
        return f"everything computed\n{row.seconds:.2f} s per run"
    compute = "" if row.compute is None else f"compute {row.compute:.2f}, "
    away = row.exact_rel_l2
    exact = "" if away is None else f", exact {away:.2g}"
    return f"{compute}{row.speedup:.2f}x as fast\nrelative L2 {row.rel_l2:.2g}{exact}"


def number(value: float | None, form: str) -> str:
    """Return a formatted number, and nothing for None."""
    return "" if value is None else format(value, form)


CLASS_COLUMNS: tuple[tuple[str, Callable[[ReportRow], str]], ...] = (
    ("accuracy", lambda row: number(row.accuracy, ".1%")),
    ("Frechet", lambda row: number(row.frechet, ".2f")),
)
"""Columns of the summaries of samples that a classifier knows the classes of."""


def _interval(row: ReportRow, aim: Aim) -> str:
    """Return the interval of a mean distance."""
    low, high = row.interval(aim)
    return "" if low is None or high is None else f"{low:.2g}-{high:.2g}"


def _predicted(row: ReportRow) -> str:
    """Return the promised distance from what a policy aims at."""
    if row.prediction is None:
        return ""
    return f"{row.prediction.error:.2g}{' to exact' if row.toward == 'exact' else ''}"


_COLUMNS: tuple[tuple[str, Callable[[ReportRow], str]], ...] = (
    ("compute", lambda row: number(row.compute, ".3f")),
    ("seconds", lambda row: f"{row.seconds:.2f}"),
    ("faster", lambda row: f"{row.speedup:.2f}x"),
    ("predicted", _predicted),
    ("rel L2", lambda row: f"{row.rel_l2:.2g}" if row.source else ""),
    ("95 %", lambda row: _interval(row, "plain") if row.source else ""),
    ("to exact", lambda row: number(row.exact_rel_l2, ".2g")),
    ("95 %", lambda row: _interval(row, "exact")),
)


# ---------------------------------------------------------------------------- the command


def evaluate_to_folder(settings: Evaluate, modality: Modality) -> None:
    """Compare schedule files with the plain model and write a report folder.

    Args:
        settings: What to sample, the schedules, what else to draw, and the folder.
        modality: Judges the samples.

    Raises:
        CommandError: Two schedules have the same name, or the calibration is of something else.
        SmoothCacheError: The model, a schedule or a record cannot be used, or the seeds are those
            of the calibration.
    """
    source, files, output = settings.source, settings.schedules, settings.output
    check_output(output, folder=True)
    calibration = settings.calibration
    refuse_existing([output], force=settings.force)
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise CommandError(f"the schedules need different file names, got {names}")
    plans = all_opened(files, settings.speedup)
    known = None if calibration is None else Calibration.load(calibration)
    if calibration is not None and known is not None:
        _check_same(known, calibration, plans)
    rows = _peer_rows(settings.peers, next(iter(plans.values())).evaluations)
    sampler = sampler_for(source, plans)
    evaluation = evaluated(
        sampler,
        {file.stem: plan for file, plan in plans.items()},
        modality.judging(source, sampler, source.seeds),
        seeds=source.seeds,
        ours=[file.stem for file, plan in plans.items() if _is_ours(plan)],
        calibration_samples=None if known is None else known.samples,
        exact={"auto": None, "yes": True, "no": False}[settings.exact],
    )
    console = Console(soft_wrap=True)
    with console.status("planning what else is possible"):
        points = _front(known, {plan.toward for plan in plans.values()})
    title = f"{source.model}: {source.samples} samples, {sampler.steps} steps"
    page = evaluation.write(
        output,
        calibration=known,
        title=title,
        points=points,
        peers=rows,
        command=sampling_command(source, modality),
    )
    evaluation.show(console)
    console.print(f"Everything is in {output}: open {page} in a browser first.")


def _is_ours(schedule: Schedule) -> bool:
    """Return whether a schedule was made by this library's own sources, not a published rule."""
    kind = source_of(schedule)
    return kind is not None and not kind.published


def _check_same(calibration: Calibration, path: Path, plans: Mapping[Path, Schedule]) -> None:
    """Refuse to draw the calibration of something else."""
    for file, plan in plans.items():
        reasons = calibration.of(plan).fingerprint.conflicts(plan.fingerprint)
        if reasons:
            raise CommandError(f"{str(file)!r} is not planned from {str(path)!r}: {reasons[0]}")


def _peer_rows(patterns: Sequence[str], evaluations: int) -> list[ReportRow]:
    rows: list[ReportRow] = []
    for pattern in patterns:
        folder, name = Path(pattern).parent, Path(pattern).name
        files = sorted(folder.glob(name)) if glob.has_magic(name) else [Path(pattern)]
        if not files:
            raise CommandError(f"--peers: no file is like {pattern!r}")
        rows += [row for file in files for row in load_peers(file, evaluations=evaluations)]
    return rows


def _front(calibration: Calibration | None, aims: Collection[Aim]) -> list[Point]:
    """Return what can be planned from a calibration, if it has sensitivities.

    Plans toward the exact solution are among them if it is aimed at, and the calibration knows it.
    """
    dynamics = None if calibration is None else calibration.dynamics
    if calibration is None or dynamics is None or not dynamics.measured:
        return []
    exact = "exact" in aims and dynamics.exact is not None
    beside = Planner(calibration, toward="exact").front() if exact else []
    return Planner(calibration).front() + beside
