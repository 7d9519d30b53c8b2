"""Planning schedules from a calibration file. Loads no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from smoothcache_core import (
    Calibration,
    Schedule,
    interval,
    save_figure,
    skip_map,
    smooth,
    smooth_to_compute,
)

from smoothcache_image._errors import PlanError


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Which schedules to plan.

    Attributes:
        alphas: One schedule for each; see `smooth`.
        computes: One schedule for each; see `smooth_to_compute`.
        intervals: One schedule for each; see `interval`.
        per: See `smooth`.
        strict: See `smooth`.
        max_lag: See `smooth`.

    Raises:
        PlanError: Nothing is asked for.
    """

    alphas: Sequence[float] = ()
    computes: Sequence[float] = ()
    intervals: Sequence[int] = ()
    per: Literal["kind", "site"] = "kind"
    strict: bool = False
    max_lag: int | None = None

    def __post_init__(self) -> None:
        if not (self.alphas or self.computes or self.intervals):
            raise PlanError("nothing to plan: give --alpha, --compute or --interval")


def plan_to_files(
    path: Path, settings: PlanSettings, output: Path, *, v1: bool, maps: bool
) -> None:
    """Plan schedules from the calibration file `path`, write them and show what they promise.

    Args:
        path: The calibration file.
        settings: Which schedules.
        output: A folder, or a `.json` file for a single schedule.
        v1: Also write the original SmoothCache's JSON.
        maps: Also draw skip maps.

    Raises:
        PlanError: Several schedules were asked for, but `output` is one file.
        SmoothCacheError: The file cannot be read, or a schedule is impossible; nothing was written.
    """
    calibration = Calibration.load(path)
    schedules = plan_schedules(calibration, settings)
    files = _files(list(schedules), output)
    older = {name: schedule.to_v1() for name, schedule in schedules.items()} if v1 else {}
    for name, schedule in schedules.items():
        file = schedule.save(files[name])
        if name in older:
            file.with_suffix(".v1.json").write_text(json.dumps(older[name]) + "\n")
        if maps:
            figure = skip_map(schedule, calibration.sites, name=name)
            save_figure(figure, file.with_suffix(".png"))
    _show(schedules, files)


def plan_schedules(calibration: Calibration, settings: PlanSettings) -> dict[str, Schedule]:
    """Return the schedules asked for, each by a name that makes a good file name.

    Raises:
        ScheduleError: One of them is impossible.
    """
    how = {"per": settings.per, "strict": settings.strict, "max_lag": settings.max_lag}
    rule = "smooth" if settings.per == "kind" else "smooth-site"
    rule += "-strict" if settings.strict else ""
    planned = {f"{rule}-alpha{a:g}": smooth(calibration, alpha=a, **how) for a in settings.alphas}
    for compute in settings.computes:
        schedule = smooth_to_compute(calibration, compute=compute, **how)
        planned[f"{rule}-compute{compute:g}"] = schedule
    return planned | {f"interval-{n}": plan_interval(calibration, n) for n in settings.intervals}


def plan_interval(calibration: Calibration, every: int) -> Schedule:
    """Return the schedule that computes at every `every`-th evaluation; see `interval`."""
    return interval(
        every,
        evaluations=calibration.evaluations,
        kinds=calibration.kinds,
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )


def _files(names: Sequence[str], output: Path) -> dict[str, Path]:
    if output.suffix != ".json":
        return {name: output / f"{name}.json" for name in names}
    if len(names) > 1:
        raise PlanError(f"{str(output)!r} is one file for {len(names)} schedules; give a folder")
    return {names[0]: output}


def _show(schedules: Mapping[str, Schedule], files: Mapping[str, Path]) -> None:
    """Show what the schedules promise, and where they are."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("alpha", "compute", "speed-up"):
        table.add_column(column, justify="right")
    table.add_column("file", no_wrap=True)
    for name, schedule in schedules.items():
        alpha = schedule.source.settings.get("alpha")
        table.add_row(
            "-" if alpha is None else f"{alpha:.4g}",
            f"{schedule.compute_fraction():.3f}",
            f"{schedule.predicted_speedup():.2f}x",
            files[name].name,
        )
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print("compute: MACs over those of the plain model. speed-up: if time were MACs alone.")
    console.print(f"Written to {next(iter(files.values())).parent}.")
