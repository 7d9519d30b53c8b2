"""Calibrating and caching the denoiser of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothcache_core import (
    CacheStats,
    Calibration,
    Schedule,
    cached,
    calibrate,
    calibrate_sharded,
)
from torch import nn

from smoothcache_image._adapters import adapter_for
from smoothcache_image._errors import PipelineError


def denoiser_of(pipe: Any) -> nn.Module:
    """Return the denoiser of a pipeline.

    Raises:
        PipelineError: It has none.
    """
    for name in ("transformer", "unet"):
        module = pipe.components.get(name)
        if module is not None:
            return module
    raise PipelineError(
        f"{type(pipe).__name__} has neither a transformer nor a unet, but {sorted(pipe.components)}"
    )


@contextmanager
def cached_pipeline(
    pipe: Any, schedule: Schedule, *, branches: Sequence[str] | None = None
) -> Generator[CacheStats]:
    """Run a pipeline by `schedule` inside a `with` block; it is restored exactly at the end.

    Example:
        >>> with cached_pipeline(pipe, Schedule.load("schedule.json")) as stats:
        ...     images = pipe(class_labels=[207], num_inference_steps=50).images

    Args:
        pipe: A diffusers pipeline with a denoiser that this package has an adapter for.
        schedule: What to compute and what to reuse.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them; those of the calibration if not given.

    Yields:
        Statistics, updated while the pipeline runs.

    Raises:
        PipelineError: The pipeline has no denoiser.
        SmoothCacheError: See `smoothcache_core.cached`.
    """
    model = denoiser_of(pipe)
    if branches is None:
        branches = schedule.fingerprint.branches or ()
    with cached(
        model, adapter_for(model), schedule, branches=branches, scheduler=pipe.scheduler
    ) as stats:
        yield stats


def calibrate_pipeline(
    pipe: Any,
    sample: Callable[[int], object],
    *,
    seeds: Iterable[int],
    max_lag: int = 3,
    samples_per_run: int = 1,
    branches: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
    sharded: bool = False,
) -> Calibration:
    """Measure the denoiser of a pipeline; see `smoothcache_core.calibrate`.

    Example:
        >>> def sample(seed: int) -> None:
        ...     generator = torch.Generator().manual_seed(seed)
        ...     pipe(class_labels=[seed % 1000], generator=generator, num_inference_steps=50)
        >>> calibration = calibrate_pipeline(pipe, sample, seeds=range(10))

    Args:
        pipe: A diffusers pipeline with a denoiser that this package has an adapter for.
        sample: Calls the pipeline once, from the noise of the given seed.
        seeds: One run each. Keep them apart from the seeds you evaluate with.
        max_lag: Largest lag, at least 1.
        samples_per_run: Samples in the batch of one run.
        branches: See `cached_pipeline`.
        checkpoint: File that is saved after every run, and continued from if it exists.
        progress: Show a progress bar.
        sharded: Share the seeds with the other processes of `torch.distributed`, or those that a
            launcher started; see `smoothcache_core.calibrate_sharded`.

    Raises:
        PipelineError: The pipeline has no denoiser.
        SmoothCacheError: See `smoothcache_core.calibrate`.
    """
    model = denoiser_of(pipe)
    measure = calibrate_sharded if sharded else calibrate
    return measure(
        model,
        adapter_for(model),
        sample,
        seeds=seeds,
        max_lag=max_lag,
        samples_per_run=samples_per_run,
        branches=branches,
        scheduler=pipe.scheduler,
        checkpoint=checkpoint,
        progress=progress,
    )
