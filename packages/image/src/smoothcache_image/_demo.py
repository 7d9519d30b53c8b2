"""The demo: calibrate, plan, apply and judge, on the small model of this package."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from smoothcache_core import Calibration, Schedule, ScheduleError, smooth_to_compute

from smoothcache_image._errors import PlanError
from smoothcache_image._evaluation import Evaluation, evaluate_pipeline, show_report
from smoothcache_image._loading import Solver, load_pipeline
from smoothcache_image._pipelines import calibrate_pipeline
from smoothcache_image._planning import plan_interval
from smoothcache_image._sampling import Sampler
from smoothcache_image._threads import use_fastest_threads

DIGITS = tuple(range(10))
_BATCH = 50
_FILES = {
    "samples.png": "the same digits, plain and by every schedule",
    "report.md": "all numbers and pictures (report.json for programs)",
    "error-curves.png": "what was calibrated",
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
    """Calibrate, plan, sample plain and cached, judge, and write everything to a folder.

    Raises:
        SmoothCacheError: The settings are impossible, or the shipped model cannot be loaded.
    """
    console, start = Console(highlight=False, soft_wrap=True), time.perf_counter()
    console.print("[bold]SmoothCache demo[/]: digits, drawn by a small diffusion transformer")
    sampler = _sampler(settings)
    threads = _set_threads(settings, sampler)
    console.print(
        f"[bold]1/3 calibrate[/]: how much changes from step to step? {sampler.batch} samples, "
        f"{sampler.steps} steps, seed {settings.seed}, {_threads(threads)}"
    )
    calibration = _calibrate(settings, sampler)
    schedules = plan_policies(calibration, settings)
    console.print(
        f"[bold]2/3 plan[/]: what to reuse? {len(schedules)} schedules: {_listed(schedules)}"
    )
    _save(settings.output, calibration, schedules)
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.runs)
    console.print(
        f"[bold]3/3 judge[/]: {settings.runs * settings.batch} new samples (seeds {seeds[0]}.."
        f"{seeds[-1]}), plain and by every schedule from the same noise"
    )
    evaluation = evaluate_pipeline(
        replace(sampler, batch=settings.batch),
        schedules,
        seeds=seeds,
        digits=True,
        ours=[name for name in schedules if name.startswith("per site")],
        warmup=0,  # calibrating has warmed up the model
    )
    title = f"Digits, {sampler.steps} steps: plain, and by schedules from the same noise"
    evaluation.write(settings.output, calibration=calibration, title=title)
    _conclude(console, settings, evaluation, time.perf_counter() - start)
    return evaluation


def plan_policies(calibration: Calibration, settings: DemoSettings) -> dict[str, Schedule]:
    """Return the schedules of the demo by name: per kind, one per site, and one interval.

    Raises:
        PlanError: No compute fraction that was asked for is within reach.
    """
    planned: dict[str, Schedule] = {}
    missed: ScheduleError | None = None
    for compute in settings.computes:
        try:
            schedule = smooth_to_compute(calibration, compute=compute)
        except ScheduleError as error:
            missed = error
            continue
        planned[f"alpha {_alpha(schedule)}"] = schedule
    if not planned:
        raise PlanError(f"none of the compute fractions is possible: {missed}") from missed
    middle = sorted(planned.values(), key=Schedule.compute_fraction)[len(planned) // 2]
    site = smooth_to_compute(calibration, compute=middle.compute_fraction(), per="site")
    planned[f"per site {_alpha(site)}"] = site
    every = max(2, round(1 / middle.compute_fraction()))
    planned[f"every {every} (FORA)"] = plan_interval(calibration, every)
    return planned


def _alpha(schedule: Schedule) -> str:
    return f"{schedule.source.settings['alpha']:.3f}"


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


def _listed(schedules: Mapping[str, Schedule]) -> str:
    return "; ".join(
        f"{name} computes {schedule.compute_fraction():.0%}" for name, schedule in schedules.items()
    )


def _save(output: Path, calibration: Calibration, schedules: Mapping[str, Schedule]) -> None:
    calibration.save(output / "calibration.safetensors")
    for name, schedule in schedules.items():
        stem = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        schedule.save(output / "schedules" / f"{stem}.json")


def _conclude(
    console: Console, settings: DemoSettings, evaluation: Evaluation, seconds: float
) -> None:
    """Show what came out and where it is."""
    console.print()
    show_report(evaluation.report, console)
    console.print(
        f"seconds: one run of {settings.batch} samples. rel L2 and PSNR (dB): against the plain "
        "sample. accuracy: digits that a\nclassifier recognises. Frechet: distance from real "
        "digits in its features.\n"
    )
    width = max(len(str(settings.output / name)) for name in _FILES)
    for name, text in _FILES.items():
        console.print(f"  {settings.output / name!s:<{width}}  {text}")
    console.print(f"\nDone in {seconds:.0f} s.")
