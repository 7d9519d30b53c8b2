"""The demo: calibrate, plan, fit, apply and judge, on the small model of this package."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from smoothcache_core import Calibration, Planner, Report, Schedule, ScheduleError

from smoothcache_image._errors import PlanError
from smoothcache_image._evaluation import Evaluation, evaluate_pipeline, show_report
from smoothcache_image._loading import Solver, load_pipeline
from smoothcache_image._pipelines import calibrate_pipeline, fit_pipeline
from smoothcache_image._planning import smooth_plan
from smoothcache_image._sampling import Sampler
from smoothcache_image._tables import print_table, target_of
from smoothcache_image._threads import use_fastest_threads

DIGITS = tuple(range(10))
_BATCH = 50
_WHAT = {
    "denoiser": "whole evaluations",
    "guidance": "whole evaluations and unconditional passes",
    "site": "parts of the model",
    "smooth": "parts of the model, as SmoothCache",
}
_FILES = {
    "samples.png": "the same digits, plain and by every schedule",
    "report.md": "all numbers and pictures (report.json for programs)",
    "predicted-and-measured.png": "the errors that were promised, and those that came",
    "schedules": "JSON files, for `smoothcache-image sample --schedule`",
}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        output: Folder to write to.
        samples: Samples to judge with; rounded up to whole batches of up to 50.
        calibration_samples: Samples to calibrate with, all in one run.
        steps: Steps of the solver.
        solver: See `load_pipeline`.
        guidance: Strength of classifier-free guidance.
        computes: Compute fractions to plan for, in (0, 1].
        max_lag: Longest reuse, in evaluations.
        seed: Seed of the calibration run; the runs that judge take the seeds that follow.
        threads: CPU threads; 0 tries what is fastest.
    """

    output: Path
    samples: int
    calibration_samples: int
    steps: int
    solver: Solver
    guidance: float
    computes: tuple[float, ...]
    max_lag: int
    seed: int
    threads: int

    @property
    def runs(self) -> int:
        """Runs to judge with."""
        return math.ceil(self.samples / _BATCH)

    @property
    def batch(self) -> int:
        """Samples of one such run."""
        return math.ceil(self.samples / self.runs)


def run_demo(settings: DemoSettings) -> Evaluation:
    """Calibrate, plan, fit, sample plain and cached, judge, and write everything to a folder.

    Raises:
        SmoothCacheError: The settings are impossible, or the shipped model cannot be loaded.
    """
    console, start = Console(highlight=False, soft_wrap=True), time.perf_counter()
    console.print("[bold]SmoothCache demo[/]: digits, drawn by a small diffusion transformer")
    sampler = _sampler(settings)
    threads = _set_threads(settings, sampler)
    console.print(
        f"[bold]1/4 calibrate[/]: what changes from step to step, and what would errors do? "
        f"{sampler.batch} samples, {sampler.steps} steps, seed {settings.seed}, {_threads(threads)}"
    )
    calibration = _calibrate(settings, sampler)
    with console.status("planning"):
        planner = Planner(calibration)
        pairs = plan_pairs(calibration, planner, settings.computes)
        points = planner.front(settings.computes)
    console.print(f"[bold]2/4 plan[/]: what to skip? {_listed(pairs)}")
    console.print("[bold]3/4 fit[/]: each plan to what its cached runs really do")
    pairs = [_fitted(pair, sampler, settings) for pair in pairs]
    schedules = {name: schedule for pair in pairs for name, schedule in pair.schedules.items()}
    _save(settings.output, calibration, schedules)
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.runs)
    console.print(
        f"[bold]4/4 judge[/]: {settings.runs * settings.batch} new samples (seeds {seeds[0]}.."
        f"{seeds[-1]}), plain and by every schedule from the same noise"
    )
    evaluation = evaluate_pipeline(
        replace(sampler, batch=settings.batch),
        schedules,
        seeds=seeds,
        digits=True,
        ours=[pair.name for pair in pairs],
        warmup=0,  # calibrating has warmed up the model
        calibration_samples=calibration.samples,
    )
    title = f"Digits, {sampler.steps} steps: plain, and by schedules from the same noise"
    evaluation.write(settings.output, calibration=calibration, title=title, points=points)
    _conclude(console, settings, evaluation, pairs, time.perf_counter() - start)
    return evaluation


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two schedules for one compute fraction: the best plan, and SmoothCache's if it gets there.

    Attributes:
        compute: The fraction.
        plan: The best plan.
        smooth: The schedule of SmoothCache's rule.
    """

    compute: float
    plan: Schedule
    smooth: Schedule | None

    @property
    def name(self) -> str:
        """Name of the plan."""
        return f"plan {self.compute:g}"

    @property
    def smooth_name(self) -> str:
        """Name of SmoothCache's schedule."""
        return f"SmoothCache {self.compute:g}"

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Both schedules by name."""
        smooth = {} if self.smooth is None else {self.smooth_name: self.smooth}
        return {self.name: self.plan, **smooth}


def plan_pairs(calibration: Calibration, planner: Planner, computes: Sequence[float]) -> list[Pair]:
    """Return the best plan, and SmoothCache's, for every compute fraction within reach.

    Args:
        calibration: What was measured.
        planner: Plans it.
        computes: The fractions.

    Raises:
        PlanError: None of them is.
    """
    pairs: list[Pair] = []
    missed: ScheduleError | None = None
    for compute in computes:
        try:
            best = planner.to_compute(compute)
        except ScheduleError as error:
            missed = error
            continue
        pairs.append(Pair(compute=compute, plan=best, smooth=_smooth(calibration, compute)))
    if not pairs:
        raise PlanError(f"none of the compute fractions is possible: {missed}") from missed
    return pairs


def _smooth(calibration: Calibration, compute: float) -> Schedule | None:
    try:
        return smooth_plan(calibration, compute)
    except ScheduleError:
        return None


def _fitted(pair: Pair, sampler: Sampler, settings: DemoSettings) -> Pair:
    fitted = fit_pipeline(
        sampler.pipe,
        sampler,
        pair.plan,
        seeds=[settings.seed],
        samples_per_run=sampler.batch,
        progress=False,
    )
    return replace(pair, plan=fitted)


def _sampler(settings: DemoSettings) -> Sampler:
    pipe = load_pipeline(device="cpu", solver=settings.solver)
    pipe.set_progress_bar_config(disable=True)
    return Sampler(
        pipe=pipe,
        conditions=DIGITS,
        steps=settings.steps,
        guidance=settings.guidance,
        batch=settings.calibration_samples,
    )


def _set_threads(settings: DemoSettings, sampler: Sampler) -> int:
    """Set the number of threads, and return it."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
        return settings.threads
    trial = replace(sampler, steps=1, batch=settings.batch)
    return use_fastest_threads(lambda: trial(settings.seed))


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _calibrate(settings: DemoSettings, sampler: Sampler) -> Calibration:
    return calibrate_pipeline(
        sampler.pipe,
        sampler,
        seeds=[settings.seed],
        max_lag=settings.max_lag,
        samples_per_run=sampler.batch,
    )


def _listed(pairs: Sequence[Pair]) -> str:
    return "; ".join(
        f"for {pair.compute:g} of the compute, {_WHAT[target_of(pair.plan)]}" for pair in pairs
    )


def _save(output: Path, calibration: Calibration, schedules: Mapping[str, Schedule]) -> None:
    calibration.save(output / "calibration.safetensors")
    for name, schedule in schedules.items():
        stem = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        schedule.save(output / "schedules" / f"{stem}.json")


def _conclude(
    console: Console,
    settings: DemoSettings,
    evaluation: Evaluation,
    pairs: Sequence[Pair],
    seconds: float,
) -> None:
    """Show what came out and where it is."""
    console.print()
    show_report(evaluation.report, console)
    console.print(
        f"seconds: one run of {settings.batch} samples. predicted: rel L2, measured on the "
        "calibration samples for plans.\nrel L2 with its 95 % interval, and PSNR (dB): against the "
        "plain sample. accuracy: digits that a classifier\nrecognises. Frechet: distance from real "
        "digits in its features.\n"
    )
    width = max(len(str(settings.output / name)) for name in _FILES)
    for name, text in _FILES.items():
        console.print(f"  {settings.output / name!s:<{width}}  {text}")
    console.print("\n[bold]Error at equal compute[/] (rel L2 from the plain samples)")
    print_table(_comparison(evaluation.report, pairs), console)
    console.print(f"Done in {seconds:.0f} s.")


def _comparison(report: Report, pairs: Sequence[Pair]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("compute", "plan", "its error", "SmoothCache's error", "times as large"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for pair in pairs:
        ours = report.row(pair.name)
        known = [f"{pair.compute:g}", target_of(pair.plan), f"{ours.rel_l2:.2g}"]
        if pair.smooth is None:
            table.add_row(*known, "out of reach", "-")
            continue
        smooth = report.row(pair.smooth_name)
        ratio = smooth.rel_l2 / ours.rel_l2 if ours.rel_l2 else math.inf
        table.add_row(*known, f"{smooth.rel_l2:.2g}", f"{ratio:.1f}")
    return table
