"""The way that the demo goes: calibrate, plan, fit, apply and judge."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from smoothcache_core import Calibration, Schedule, calibrate
from smoothcache_core.cli.commands.demo import Demo
from smoothcache_core.cli.demo.pairs import Pair, comparison, described_pairs, plan_pairs
from smoothcache_core.cli.demo.threads import use_fastest_threads
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.evaluating import Evaluation, evaluated, sampling_command
from smoothcache_core.cli.fitting import fitted_to
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.cli.tables import print_table
from smoothcache_core.files import check_output
from smoothcache_core.planning import Planner, Point
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.reports.page import PAGE
from smoothcache_core.sampling import ConditionedSampler


def run_demo(settings: Demo, modality: Modality) -> Evaluation:
    """Calibrate, plan, fit, sample plain and cached, judge, and write everything to a folder.

    Args:
        settings: What to sample, plan for and write. The samples to calibrate with are all in one
        modality: What the demo is about.
            run, from the seed of the source; the runs that judge take the seeds that follow.

    Raises:
        SmoothCacheError: The settings are impossible, or the shipped model cannot be loaded.
    """
    check_output(settings.output, folder=True)
    console, start = Console(highlight=False, soft_wrap=True), time.perf_counter()
    console.print(f"[bold]SmoothCache demo[/]: {modality.demo.opening}")
    written = ("calibration.safetensors", "report.json", "report.md", PAGE)
    refuse_existing([settings.output / name for name in written], force=settings.force)
    count = settings.calibration_samples
    source = replace(settings.source, device="cpu", samples=count, batch=count)
    sampler = source.sampler(steps=source.steps or source.STEPS)
    sampler.show_progress(False)
    demo = _Demo(
        modality=modality, source=source, settings=settings, sampler=sampler, console=console
    )
    calibration = demo.calibrate(demo.set_threads())
    pairs, points = demo.plan(calibration)
    _save(settings.output, calibration, pairs)
    evaluation = demo.judge(calibration, pairs)
    what = f"{modality.demo.title}, {sampler.steps} steps"
    title = f"{what}: plain, and by schedules from the same noise"
    evaluation.write(
        settings.output,
        calibration=calibration,
        title=title,
        points=points,
        command=sampling_command(source, modality),
    )
    demo.conclude(evaluation, pairs, time.perf_counter() - start)
    return evaluation


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """The steps of the demo, each of which says what it does."""

    modality: Modality
    source: Source
    settings: Demo
    sampler: ConditionedSampler
    console: Console

    @property
    def runs(self) -> int:
        """Runs to judge with: as few as hold all samples."""
        return math.ceil(self.settings.samples / self.modality.demo.batch)

    @property
    def run_samples(self) -> int:
        """Samples of one such run; together they may be a few more than asked for."""
        return math.ceil(self.settings.samples / self.runs)

    @property
    def judged(self) -> ConditionedSampler:
        """The sampler of the runs that judge."""
        return replace(self.sampler, samples=self.run_samples)

    def set_threads(self) -> int:
        """Set the number of threads, and return it."""
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
            return self.settings.threads
        trial = replace(self.judged, steps=2)  # some solvers make no single step
        return use_fastest_threads(lambda: trial(self.source.seed))

    def calibrate(self, threads: int) -> Calibration:
        sampler, seed = self.sampler, self.source.seed
        self.console.print(
            f"[bold]1/4 calibrate[/]: what changes from step to step, and what would errors do? "
            f"{sampler.samples} samples, {sampler.steps} steps, seed {seed}, {threads} "
            f"thread{'s' if threads > 1 else ''}"
        )
        with tqdm(desc="calibrating", unit="run") as bar:

            def counted(seed: int) -> Tensor:
                latents = sampler(seed)
                bar.update()
                return latents

            return calibrate(
                replace(sampler.plain_sampler(), run=counted),
                seeds=[seed],
                max_lag=self.settings.max_lag,
                progress=False,  # all in one run, and then runs for the sensitivities
            )

    def plan(self, calibration: Calibration) -> tuple[list[Pair], list[Point]]:
        """Plan, and fit what was planned; return it, and what else is possible."""
        computes = self.settings.computes
        with self.console.status("planning"):
            planner = Planner(calibration)
            pairs = plan_pairs(calibration, planner, computes)
            points = planner.front(computes)
        self.console.print(f"[bold]2/4 plan[/]: what to skip? {described_pairs(pairs)}")
        self.console.print("[bold]3/4 fit[/]: each plan to what its cached runs really do")
        return [self._fitted(pair) for pair in tqdm(pairs, desc="fitting", unit="plan")], points

    def _fitted(self, pair: Pair) -> Pair:
        fitted = fitted_to(self.sampler, pair.plan, seeds=[self.source.seed], progress=False)
        return replace(pair, plan=fitted)

    def judge(self, calibration: Calibration, pairs: Sequence[Pair]) -> Evaluation:
        first, runs, sampler = self.source.seed + 1, self.runs, self.judged
        seeds = range(first, first + runs)
        self.console.print(
            f"[bold]4/4 judge[/]: {runs * sampler.samples} new samples (seeds {seeds[0]}.."
            f"{seeds[-1]}), plain and by every schedule from the same noise"
        )
        return evaluated(
            sampler,
            _schedules(pairs),
            self.modality.judging(self.source, sampler, seeds),
            seeds=seeds,
            ours=[pair.name for pair in pairs],
            warmup=0,  # calibrating has warmed up the model
            calibration_samples=calibration.samples,
        )

    def conclude(self, evaluation: Evaluation, pairs: Sequence[Pair], seconds: float) -> None:
        """Show what came out and where it is."""
        demo, console = self.modality.demo, self.console
        console.print()
        evaluation.show(console)
        console.print(
            f"seconds: one run of {self.run_samples} samples. predicted: rel L2, measured "
            f"on the calibration samples for plans.\n{demo.legend}\n"
        )
        files = {str(self.settings.output / name): text for name, text in demo.files.items()}
        width = max(map(len, files), default=0)
        for name, text in files.items():
            console.print(f"  {name:<{width}}  {text}")
        console.print("\n[bold]Error at equal compute[/] (rel L2 from the plain samples)")
        print_table(comparison(evaluation.report, pairs), console)
        console.print(f"Done in {seconds:.0f} s.")


def _schedules(pairs: Sequence[Pair]) -> dict[str, Schedule]:
    return {name: schedule for pair in pairs for name, schedule in pair.schedules.items()}


def _save(output: Path, calibration: Calibration, pairs: Sequence[Pair]) -> None:
    calibration.save(output / "calibration.safetensors")
    schedules = _schedules(pairs)
    for name, file in schedule_files(schedules).items():
        schedules[name].save(output / file)
