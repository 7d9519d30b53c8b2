"""What the command `sample` does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from smoothcache_core import Schedule
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.cli.commands.sample import Sample
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.loading import sampler_for
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.shared import opened
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.runtime import CacheStats
from smoothcache_core.sampling import ConditionedSampler


def sample_to_folder(settings: Sample, modality: Modality) -> None:
    """Sample into a folder, plain or by a schedule file.

    Args:
        settings: What to sample, by which schedule, and the folder.
        modality: Saves the samples.

    Raises:
        CommandError: A speed-up is asked for, but no schedule is named.
        SmoothCacheError: The model or the schedule cannot be used.
    """
    source, schedule = settings.source, settings.schedule
    if schedule is None and settings.speedup is not None:
        raise CommandError("--speedup chooses one of shared schedules; give --schedule")
    own = Path("samples" if schedule is None else f"samples-{schedule.stem}")
    output = settings.output or own
    refuse_existing([output], force=settings.force)
    check_output(output, folder=True)
    plan = None if schedule is None else opened(schedule, settings.speedup)
    sampler = sampler_for(source, {} if schedule is None or plan is None else {schedule: plan})
    context = nullcontext() if plan is None else cached_sampler(sampler, plan)
    with context as stats:
        start = time.perf_counter()
        latents = [sampler(seed) for seed in tqdm(source.seeds, desc="sampling", unit="run")]
        seconds = time.perf_counter() - start
    output.mkdir(parents=True, exist_ok=True)
    files = modality.save(source, sampler, source.seeds, latents, output)
    console = Console(soft_wrap=True)
    console.print(_told(seconds, source.samples, plan, stats))
    console.print(f"{len(files)} {modality.units} in {output}: {files[0].name} ...")


def _told(seconds: float, samples: int, plan: Schedule | None, stats: CacheStats | None) -> str:
    """Say how long it took and what was computed and reused."""
    text = f"{samples} samples in {seconds:.2f} s, without decoding"
    if stats is None or plan is None:
        return f"{text}; everything computed."
    return f"{text}; {skipped(plan, stats)}."


def skipped(plan: Schedule, stats: CacheStats) -> str:
    """Return what a schedule had computed and reused, and its share in the plain run.

    Args:
        plan: What was sampled by.
        stats: What was counted meanwhile.
    """
    cost = f"; {plan.compute_fraction():.3f} of the {_unit(plan)}" if plan.has_compute else ""
    corrected = f"; {stats.corrected} outputs corrected" if stats.corrected else ""
    if corrected and not plan.skips:
        return f"everything computed{corrected}"
    return f"{_counted(stats)}{corrected}{cost}"


def _unit(plan: Schedule) -> str:
    return "MACs" if plan.cost is not None and plan.cost.counted else "evaluations"


def _counted(stats: CacheStats) -> str:
    names = {DENOISER.kind: "evaluations", GUIDANCE.kind: "unconditional passes"}
    told = [
        f"{stats.computed.get(key, 0)} {name} computed, {stats.reused[key]} filled"
        for key, name in names.items()
        if key in stats.reused
    ]
    computed, reused = (
        sum(number for key, number in counts.items() if key not in names)
        for counts in (stats.computed, stats.reused)
    )
    if reused or not told:
        told.append(f"{computed} site calls computed, {reused} reused")
    return "; ".join(told)


def save_samples(
    sampler: ConditionedSampler,
    seeds: Sequence[int],
    latents: Iterable[Tensor],
    folder: Path,
    *,
    save: Callable[[Tensor, Path], object],
    suffix: str,
    name: Callable[[Any], str],
) -> list[Path]:
    """Write the samples of some runs into a folder, one file each, and return the files.

    Args:
        sampler: Made the runs, and decodes them.
        seeds: Seeds of the runs.
        latents: Their final latents, (samples, ...) each.
        folder: Where to write; it exists.
        save: Writes one decoded sample into a file.
        suffix: End of the names of the files, such as `".png"`.
        name: Returns the name of a condition.
    """
    files: list[Path] = []
    for seed, part in zip(seeds, latents, strict=True):
        for condition, sample in zip(
            sampler.conditions_of(seed), sampler.decode(part), strict=True
        ):
            files.append(folder / f"{file_stem(len(files), name(condition))}{suffix}")
            save(sample, files[-1])
    return files


def file_stem(number: int, label: str) -> str:
    """Return the name, without a suffix, of the file of a sample: its number and what it shows."""
    return f"{number:04d}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')}"
