"""What every sampling script does once it knows its model: calibrate, sample, tell, write."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from smoothcache_core import Sampler, Schedule, calibrate, plan
from smoothcache_core.cli.sampling import skipped
from smoothcache_core.files import check_output
from smoothcache_core.pipelines import announcing_guidance, cached_sampler

from tools.sample.options import Options


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model that samples what was asked for.

    Attributes:
        sampler: What `calibrate` and `cached_sampler` take.
        sample: Samples from a seed, decoded.
        save: Writes what `sample` returned into a file, and returns the file.
        announced: Strengths of guidance by name, where the model does not tell them.
    """

    sampler: Sampler
    sample: Callable[[int], Any]
    save: Callable[[Any, Path], Path]
    announced: Mapping[str, float] = field(default_factory=dict[str, float])


def sample_with(
    options: Options,
    load: Callable[[int], Loaded],
    *,
    steps: int,
    output: Path,
    schedule: Schedule | None = None,
) -> None:
    """Sample by a schedule or plain, and tell what was skipped and how long it took.

    Args:
        options: How to sample.
        load: Loads the model for a number of steps; nothing is loaded before the options are known
            to be right.
        steps: Steps of the model by default.
        output: File to write by default.
        schedule: What to sample by, if no option says it.

    Raises:
        SmoothCacheError: The schedule, the model or the file cannot be used.
    """
    target = options.output or output
    check_output(target)
    planned = options.loaded_schedule() or schedule
    loaded = load(options.steps or (steps if planned is None else planned.evaluations))
    with announcing_guidance(**loaded.announced):
        if options.plans and options.schedule is not None and options.speedup is not None:
            planned = planned_for(loaded.sampler, options.speedup, options.runs)
            print(f"planned, and written to {planned.save(options.schedule)}")
        if planned is None:
            seconds, made = _timed(loaded, options.seed)
            print(f"{seconds:.1f} s, everything computed, in {loaded.save(made, target)}")
            return
        with cached_sampler(loaded.sampler, planned) as stats:
            seconds, made = _timed(loaded, options.seed)
        told = skipped(planned, stats)
        print(f"{seconds:.1f} s, {told}, in {loaded.save(made, target)}")
        if options.compare:
            plain, made = _timed(loaded, options.seed)
            beside = target.with_name(f"{target.stem}-plain{target.suffix}")
            file = loaded.save(made, beside)
            print(f"{plain:.1f} s plain, {plain / seconds:.2f} times as long, in {file}")


def _timed(loaded: Loaded, seed: int) -> tuple[float, Any]:
    start = time.perf_counter()
    made = loaded.sample(seed)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, made


def planned_for(sampler: Sampler, speedup: float, runs: int) -> Schedule:
    """Calibrate a model, and return what is planned for a speedup.

    Args:
        sampler: The model, and how it is sampled.
        speedup: Compute of the plain run over that of a cached one, above 1.
        runs: Runs to calibrate with, at least 1.
    """
    # the last of the seeds that fit in 31 bits: those that a user samples with are others
    last = torch.iinfo(torch.int32).max
    return plan(calibrate(sampler, seeds=range(last - runs, last)), speedup=speedup)
