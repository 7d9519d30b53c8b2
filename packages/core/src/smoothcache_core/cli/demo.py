"""The demo: calibrate, plan, fit, apply and judge, on a small model that comes with the package."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from smoothcache_core import Calibration, Schedule, calibrate
from smoothcache_core.cli.evaluating import Evaluation, evaluated
from smoothcache_core.cli.fitting import fitted_to
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.pairs import Pair, comparison, described_pairs, plan_pairs
from smoothcache_core.cli.sampler import Sampler
from smoothcache_core.cli.source import Source
from smoothcache_core.cli.tables import print_table
from smoothcache_core.cli.threads import use_fastest_threads
from smoothcache_core.planning import Planner, Point


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        output: Folder to write to.
        samples: Samples to judge with; rounded up to whole batches.
        batch: Most samples of such a batch.
        computes: Compute fractions to plan for, in (0, 1].
        max_lag: Longest reuse, in evaluations.
        threads: CPU threads; 0 tries what is fastest.
    """

    output: Path
    samples: int
    batch: int
    computes: tuple[float, ...]
    max_lag: int
    threads: int

    @property
    def runs(self) -> int:
        """Runs to judge with."""
        return math.ceil(self.samples / self.batch)

    @property
    def run_samples(self) -> int:
        """Samples of one such run."""
        return math.ceil(self.samples / self.runs)


def run_demo(modality: Modality, source: Source, settings: DemoSettings) -> Evaluation:
    """Calibrate, plan, fit, sample plain and cached, judge, and write everything to a folder.

    Args:
        modality: What the demo is about.
        source: The shipped model, with the samples to calibrate with, all in one run from its
            seed; the runs that judge take the seeds that follow.
        settings: The rest.

    Raises:
        SmoothCacheError: The settings are impossible, or the shipped model cannot be loaded.
    """
    console, start = Console(highlight=False, soft_wrap=True), time.perf_counter()
    console.print(f"[bold]SmoothCache demo[/]: {modality.demo.opening}")
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
    evaluation.write(settings.output, calibration=calibration, title=title, points=points)
    demo.conclude(evaluation, pairs, time.perf_counter() - start)
    return evaluation


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """The steps of the demo, each of which says what it does."""

    modality: Modality
    source: Source
    settings: DemoSettings
    sampler: Sampler
    console: Console

    @property
    def judged(self) -> Sampler:
        """The sampler of the runs that judge."""
        return replace(self.sampler, batch=self.settings.run_samples)

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
            f"{sampler.batch} samples, {sampler.steps} steps, seed {seed}, {threads} "
            f"thread{'s' if threads > 1 else ''}"
        )
        with sampler.around(), tqdm(desc="calibrating", unit="run") as bar:

            def counted(seed: int) -> Tensor:
                latents = sampler(seed)
                bar.update()
                return latents

            return calibrate(
                sampler.denoiser,
                sampler.adapter,
                counted,
                seeds=[seed],
                max_lag=self.settings.max_lag,
                samples_per_run=sampler.batch,
                branches=sampler.branches,
                scheduler=sampler.scheduler,
                solver=sampler.solver_name,
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
        first, runs, sampler = self.source.seed + 1, self.settings.runs, self.judged
        seeds = range(first, first + runs)
        self.console.print(
            f"[bold]4/4 judge[/]: {runs * sampler.batch} new samples (seeds {seeds[0]}.."
            f"{seeds[-1]}), plain and by every schedule from the same noise"
        )
        return evaluated(
            sampler,
            _schedules(pairs),
            self.modality.judging(sampler, seeds, True),
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
            f"seconds: one run of {self.settings.run_samples} samples. predicted: rel L2, measured "
            f"on the calibration samples for plans.\n{demo.legend}\n"
        )
        files = {str(self.settings.output / name): text for name, text in demo.files.items()}
        width = max(map(len, files))
        for name, text in files.items():
            console.print(f"  {name:<{width}}  {text}")
        console.print("\n[bold]Error at equal compute[/] (rel L2 from the plain samples)")
        print_table(comparison(evaluation.report, pairs), console)
        console.print(f"Done in {seconds:.0f} s.")


def _schedules(pairs: Sequence[Pair]) -> dict[str, Schedule]:
    return {name: schedule for pair in pairs for name, schedule in pair.schedules.items()}


def _save(output: Path, calibration: Calibration, pairs: Sequence[Pair]) -> None:
    calibration.save(output / "calibration.safetensors")
    for name, schedule in _schedules(pairs).items():
        stem = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        schedule.save(output / "schedules" / f"{stem}.json")
