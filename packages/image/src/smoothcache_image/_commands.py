"""What the commands `fit`, `sample` and `evaluate` do."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from smoothcache_core import (
    DENOISER,
    GUIDANCE,
    CacheStats,
    Calibration,
    Planner,
    Point,
    ReportRow,
    Schedule,
    load_peers,
)
from torch import Tensor
from tqdm import tqdm

from smoothcache_image._errors import PlanError
from smoothcache_image._evaluation import evaluate_pipeline, show_report
from smoothcache_image._loading import SHIPPED
from smoothcache_image._pipelines import cached_pipeline, fit_pipeline
from smoothcache_image._sampling import Sampler, label_name
from smoothcache_image._source import DEFAULT_STEPS, Source, check_steps
from smoothcache_image._tables import show_schedules

OURS = ("whole", "planned")
"""Sources of schedules that are this library's own, not published by others."""

# ---------------------------------------------------------------------------- fit


def fit_to_file(
    source: Source, file: Path, output: Path, *, trials: int | None, checkpoint: Path | None
) -> None:
    """Fit a schedule file to the runs of a model, refine it if asked to, and show what it does.

    Args:
        source: What to sample.
        file: The schedule.
        output: File for the fitted schedule.
        trials: Schedules to try; None to fit only.
        checkpoint: File that keeps what was tried.

    Raises:
        PlanError: There is nothing to refine, or a checkpoint without trials.
        SmoothCacheError: The model or the schedule cannot be used.
    """
    schedule = Schedule.load(file)
    whole = {DENOISER.kind, GUIDANCE.kind} & set(schedule.rows)
    if checkpoint is not None and trials is None:
        raise PlanError("--checkpoint keeps what --refine tried; give --refine TRIALS")
    if trials is not None and not whole:
        raise PlanError(
            f"{str(file)!r} skips parts of the model; only whole evaluations are refined"
        )
    sampler = _sampler_for(source, {file: schedule})
    sampler.pipe.set_progress_bar_config(disable=True)
    fitted = fit_pipeline(
        sampler.pipe,
        sampler,
        schedule,
        seeds=source.seeds,
        samples_per_run=sampler.batch,
        branches=sampler.branches or None,
        trials=trials or 0,
        checkpoint=checkpoint,
    )
    fitted.save(output)
    console = Console(soft_wrap=True, highlight=False)
    show_schedules({file.name: schedule, output.name: fitted}, console)
    what = "" if whole else " Fills of parts of the model are not fitted, their error is measured."
    console.print(f"Measured on {source.samples} samples.{what} Written to {output}.")
    console.print(f"Next: smoothcache-image evaluate {output} --model {source.model} --samples 50")


# ---------------------------------------------------------------------------- sample


def sample_to_folder(source: Source, output: Path, *, schedule: Path | None) -> None:
    """Sample pictures into a folder, plain or by a schedule file.

    Raises:
        SmoothCacheError: The model or the schedule cannot be used.
    """
    plan = None if schedule is None else Schedule.load(schedule)
    sampler = _sampler_for(source, {} if schedule is None or plan is None else {schedule: plan})
    context = nullcontext() if plan is None else cached_pipeline(sampler.pipe, plan)
    with context as stats:
        start = time.perf_counter()
        latents = [sampler(seed) for seed in tqdm(source.seeds, desc="sampling", unit="run")]
        seconds = time.perf_counter() - start
    files = _save_pictures(sampler, source.seeds, latents, output)
    console = Console(soft_wrap=True)
    console.print(_told(seconds, source.samples, plan, stats))
    console.print(f"{len(files)} pictures in {output}: {files[0].name} ...")


def _sampler_for(source: Source, plans: dict[Path, Schedule]) -> Sampler:
    """Load the model, with as many steps as the schedules have evaluations if none are given."""
    evaluations = [plan.evaluations for plan in plans.values()]
    sampler = source.sampler(steps=source.steps or (evaluations or [DEFAULT_STEPS])[0])
    for file, plan in plans.items():
        check_steps(sampler, plan.evaluations, file)
    return sampler


def _save_pictures(
    sampler: Sampler, seeds: Sequence[int], latents: Iterable[Tensor], output: Path
) -> list[Path]:
    from torchvision.utils import save_image

    output.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for seed, part in zip(seeds, latents, strict=True):
        for condition, picture in zip(
            sampler.conditions_of(seed), sampler.images(part), strict=True
        ):
            name = re.sub(r"[^a-z0-9]+", "-", label_name(sampler.pipe, condition).lower())
            files.append(output / f"{len(files):04d}-{name.strip('-')}.png")
            save_image(picture, files[-1])
    return files


def _told(seconds: float, samples: int, plan: Schedule | None, stats: CacheStats | None) -> str:
    """Say how long it took and what was computed and reused."""
    text = f"{samples} samples in {seconds:.2f} s, without decoding"
    if stats is None or plan is None:
        return f"{text}; everything computed."
    cost = "" if plan.cost is None else f"; {plan.compute_fraction():.3f} of the MACs"
    return f"{text}; {_counted(stats)}{cost}."


def _counted(stats: CacheStats) -> str:
    names = {DENOISER.kind: "evaluations", GUIDANCE.kind: "unconditional passes"}
    whole = [
        f"{stats.computed.get(key, 0)} {name} computed, {stats.reused[key]} filled"
        for key, name in names.items()
        if key in stats.reused
    ]
    if whole:
        return "; ".join(whole)
    computed, reused = sum(stats.computed.values()), sum(stats.reused.values())
    return f"{computed} site calls computed, {reused} reused"


# ---------------------------------------------------------------------------- evaluate


def evaluate_to_folder(
    source: Source,
    files: Sequence[Path],
    output: Path,
    *,
    calibration: Path | None,
    peers: Sequence[str] = (),
) -> None:
    """Compare schedule files with the plain model and write a report folder.

    Args:
        source: What to sample.
        files: The schedules.
        output: The folder.
        calibration: What they were calibrated with, to be drawn.
        peers: Records of other methods, or patterns of such files, to be drawn.

    Raises:
        PlanError: Two schedules have the same name, or the calibration is of something else.
        SmoothCacheError: The model, a schedule or a record cannot be used, or the seeds are those
            of the calibration.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise PlanError(f"the schedules need different file names, got {names}")
    plans = {file: Schedule.load(file) for file in files}
    known = None if calibration is None else Calibration.load(calibration)
    if calibration is not None and known is not None:
        _check_same(known, calibration, plans)
    rows = _peer_rows(peers, next(iter(plans.values())).evaluations)
    sampler = _sampler_for(source, plans)
    evaluation = evaluate_pipeline(
        sampler,
        {file.stem: plan for file, plan in plans.items()},
        seeds=source.seeds,
        digits=source.model in SHIPPED,
        ours=[file.stem for file, plan in plans.items() if plan.source.name in OURS],
        calibration_samples=None if known is None else known.samples,
    )
    console = Console(soft_wrap=True)
    with console.status("planning what else is possible"):
        points = _front(known)
    title = f"{source.model}: {source.samples} samples, {sampler.steps} steps"
    text = evaluation.write(output, calibration=known, title=title, points=points, peers=rows)
    show_report(evaluation.report, console)
    console.print(f"Everything is in {output}: open {text} and samples.png first.")


def _check_same(calibration: Calibration, path: Path, plans: Mapping[Path, Schedule]) -> None:
    """Refuse to draw the calibration of something else."""
    for file, plan in plans.items():
        reasons = calibration.fingerprint.conflicts(plan.fingerprint)
        if reasons:
            raise PlanError(f"{str(file)!r} is not planned from {str(path)!r}: {reasons[0]}")


def _peer_rows(patterns: Sequence[str], evaluations: int) -> list[ReportRow]:
    rows: list[ReportRow] = []
    for pattern in patterns:
        folder, name = Path(pattern).parent, Path(pattern).name
        files = sorted(folder.glob(name)) if glob.has_magic(name) else [Path(pattern)]
        if not files:
            raise PlanError(f"--peers: no file is like {pattern!r}")
        rows += [row for file in files for row in load_peers(file, evaluations=evaluations)]
    return rows


def _front(calibration: Calibration | None) -> list[Point]:
    """Return what can be planned from a calibration, if it has sensitivities."""
    if calibration is None or calibration.dynamics is None or not calibration.dynamics.measured:
        return []
    return Planner(calibration).front()
