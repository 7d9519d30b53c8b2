"""What the commands `calibrate`, `sample` and `evaluate` do."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from smoothcache_core import CacheStats, Calibration, Schedule
from torch import Tensor
from tqdm import tqdm

from smoothcache_image._errors import PipelineError, PlanError
from smoothcache_image._evaluation import evaluate_pipeline, show_report
from smoothcache_image._loading import SHIPPED
from smoothcache_image._pipelines import cached_pipeline, calibrate_pipeline
from smoothcache_image._ranks import Ranks, launched_ranks
from smoothcache_image._sampling import Sampler, label_name
from smoothcache_image._source import Source

DEFAULT_STEPS = 50

# ---------------------------------------------------------------------------- calibrate


def calibrate_to_file(source: Source, output: Path, *, max_lag: int) -> None:
    """Calibrate a model into a file, or continue the file; share the runs if launched as several.

    Raises:
        PipelineError: The model cannot be loaded, or the file was made with other settings.
        SmoothCacheError: See `smoothcache_core.calibrate`.
    """
    with launched_ranks() as ranks:
        console = Console(soft_wrap=True, quiet=ranks.rank > 0)
        found = _continued(source, output, console)
        done = found.get(output)
        if ranks.world > 1 or len(found) != 1 or done is None or _left(source, found):
            done = _calibrated(source, output, ranks, found, max_lag=max_lag)
    shares = ", ".join(f"{kind} {done.cost.fraction(kind):.0%}" for kind in done.kinds)
    console.print(
        f"{output}: {done.samples} samples of {done.evaluations} evaluations each, "
        f"{len(done.sites)} sites. Of the MACs, the sites do: {shares}."
    )
    console.print(f"Next: smoothcache-image plan {output} --compute 0.5")


def _calibrated(
    source: Source, output: Path, ranks: Ranks, found: Mapping[Path, Calibration], *, max_lag: int
) -> Calibration:
    sampler = source.sampler(steps=source.steps or DEFAULT_STEPS)
    for file, part in found.items():
        _check_steps(sampler, part.evaluations, file)
    if ranks.rank > 0:
        sampler.pipe.set_progress_bar_config(disable=True)
    return calibrate_pipeline(
        sampler.pipe,
        sampler,
        seeds=source.seeds,
        max_lag=max_lag,
        samples_per_run=sampler.batch,
        branches=sampler.branches,
        checkpoint=output,
        sharded=True,
    )


def _continued(source: Source, output: Path, console: Console) -> dict[Path, Calibration]:
    """Return what the file, and those that ranks left beside it, hold already, and say so."""
    parts = output.parent.glob(f"{glob.escape(output.stem)}.rank*-of-*{output.suffix}")
    files = [output] if output.exists() else []
    found = {file: Calibration.load(file) for file in [*files, *sorted(parts)]}
    for file, part in found.items():
        batch = part.samples // len(part.seeds)
        if batch != source.run_samples:
            raise PipelineError(
                f"cannot continue {str(file)!r}: its runs are batches of {batch}, not of "
                f"{source.run_samples}; set the batch or give another output"
            )
    if found:
        runs = len({seed for part in found.values() for seed in part.seeds})
        console.print(
            f"Continuing {output}: {runs * source.run_samples} samples are there, "
            f"{len(_left(source, found)) * source.run_samples} to go."
        )
    return found


def _left(source: Source, found: Mapping[Path, Calibration]) -> set[int]:
    """Return the seeds that have not been run."""
    return set(source.seeds).difference(*(part.seeds for part in found.values()))


def _check_steps(sampler: Sampler, evaluations: int, file: Path) -> None:
    """Refuse a wrong number of steps where steps and evaluations are the same thing."""
    scheduler = sampler.pipe.scheduler
    if getattr(scheduler, "order", 1) == 1 and sampler.steps != evaluations:
        raise PipelineError(
            f"{str(file)!r} is for {evaluations} evaluations, but {type(scheduler).__name__} makes "
            f"{sampler.steps} in {sampler.steps} steps; set the steps to {evaluations}"
        )


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
        _check_steps(sampler, plan.evaluations, file)
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
    computed, reused = sum(stats.computed.values()), sum(stats.reused.values())
    cost = "" if plan.cost is None else f"; {plan.compute_fraction():.3f} of the MACs"
    return f"{text}; {computed} site calls computed, {reused} reused{cost}."


# ---------------------------------------------------------------------------- evaluate


def evaluate_to_folder(
    source: Source, files: Sequence[Path], output: Path, *, calibration: Path | None
) -> None:
    """Compare schedule files with the plain model and write a report folder.

    Raises:
        PlanError: Two schedules have the same name.
        SmoothCacheError: The model or a schedule cannot be used, or the seeds are those of the
            calibration.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        raise PlanError(f"the schedules need different file names, got {names}")
    plans = {file: Schedule.load(file) for file in files}
    known = None if calibration is None else Calibration.load(calibration)
    sampler = _sampler_for(source, plans)
    evaluation = evaluate_pipeline(
        sampler,
        {file.stem: plan for file, plan in plans.items()},
        seeds=source.seeds,
        digits=source.model in SHIPPED,
    )
    title = f"{source.model}: {source.samples} samples, {sampler.steps} steps"
    text = evaluation.write(output, calibration=known, title=title)
    console = Console(soft_wrap=True)
    show_report(evaluation.report, console)
    console.print(f"Everything is in {output}: open {text} and samples.png first.")
