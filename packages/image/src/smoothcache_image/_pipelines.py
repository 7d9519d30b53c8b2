"""Calibrating and caching the denoiser of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from smoothcache_core import (
    CacheStats,
    Calibration,
    Schedule,
    cached,
    calibrate,
    calibrate_sharded,
    fit,
    pipeline_announcing,
    refine,
)
from torch import Tensor, nn

from smoothcache_image._adapters import adapter_for
from smoothcache_image._errors import PipelineError

PLANNING_LAG = 12
"""Largest lag that is measured unless told otherwise; plans of sites skip up to half as many."""


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
    with (
        pipeline_announcing(pipe),
        cached(
            model, adapter_for(model), schedule, branches=branches, scheduler=pipe.scheduler
        ) as stats,
    ):
        yield stats


def calibrate_pipeline(
    pipe: Any,
    sample: Callable[[int], object],
    *,
    seeds: Iterable[int],
    max_lag: int = PLANNING_LAG,
    samples_per_run: int = 1,
    sensitivity: int | Collection[int] = 2,
    branches: Sequence[str] = (),
    references: Literal["device", "cpu"] = "device",
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
        sample: Calls the pipeline once, from the noise of the given seed; the final latent is what
            the pipeline gives to its decoder.
        seeds: One run each. Keep them apart from the seeds you evaluate with.
        max_lag: Largest lag, at least 1.
        samples_per_run: Samples in the batch of one run.
        sensitivity: See `smoothcache_core.calibrate`.
        branches: See `cached_pipeline`.
        references: See `smoothcache_core.calibrate`.
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
        _final_latents(pipe, sample),
        seeds=seeds,
        max_lag=max_lag,
        samples_per_run=samples_per_run,
        sensitivity=sensitivity,
        branches=branches,
        scheduler=pipe.scheduler,
        references=references,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit_pipeline(
    pipe: Any,
    sample: Callable[[int], object],
    schedule: Schedule,
    *,
    seeds: Sequence[int],
    samples_per_run: int = 1,
    branches: Sequence[str] | None = None,
    trials: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Schedule:
    """Fit a schedule to what its cached runs really do, and measure its error.

    See `smoothcache_core.fit`, and `smoothcache_core.refine` for `trials`.

    Example:
        >>> schedule = fit_pipeline(pipe, sample, plan(calibration, compute=0.35), seeds=range(8))

    Args:
        pipe: A diffusers pipeline with a denoiser that this package has an adapter for.
        sample: See `calibrate_pipeline`.
        schedule: What to compute and what to skip.
        seeds: One run each; those of the calibration will do.
        samples_per_run: Samples in the batch of one run.
        branches: See `cached_pipeline`.
        trials: Other schedules of whole evaluations to try.
        checkpoint: File that keeps what was tried, and is continued from if it exists.
        progress: Show a progress bar.

    Raises:
        PipelineError: The pipeline has no denoiser.
        SmoothCacheError: See `smoothcache_core.fit`.
    """
    model = denoiser_of(pipe)
    if branches is None:
        branches = schedule.fingerprint.branches or ()
    adapt = partial(
        refine if trials else fit,
        model,
        adapter_for(model),
        _final_latents(pipe, sample),
        schedule,
        seeds=seeds,
        samples_per_run=samples_per_run,
        branches=branches,
        scheduler=pipe.scheduler,
        progress=progress,
    )
    return adapt(trials=trials, checkpoint=checkpoint) if trials else adapt()


def _final_latents(pipe: Any, sample: Callable[[int], object]) -> Callable[[int], object]:
    """Return `sample`, but giving what the pipeline decodes, if it decodes once.

    The pipeline announces its guidance meanwhile.
    """
    vae = pipe.components.get("vae")

    def listening(seed: int) -> object:
        with pipeline_announcing(pipe):
            if vae is None:
                return sample(seed)
            with _heard(vae) as latents:
                result = sample(seed)
        return latents[0].detach().float() if len(latents) == 1 else result

    return listening


@contextmanager
def _heard(vae: Any) -> Generator[list[Tensor]]:
    """Note the latents that an autoencoder decodes."""
    heard: list[Tensor] = []
    before, decode = vars(vae).get("decode"), vae.decode

    def noting(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        heard.append(z)
        return decode(z, *args, **kwargs)

    vars(vae)["decode"] = noting
    try:
        yield heard
    finally:
        if before is None:
            del vars(vae)["decode"]
        else:
            vars(vae)["decode"] = before
