"""The sampler of a diffusers pipeline, and the pipeline run by a schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from smoothcache_core import Sampler, Schedule
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import cached_sampler, diffusers_sampler
from smoothcache_core.pipelines.diffusers_shaped import denoiser_part, known_class
from smoothcache_core.relay import members_of
from smoothcache_core.runtime import CacheStats
from torch import nn

from smoothcache_image.adapters import PIPELINES, adapter_for


def denoiser_of(pipe: Any) -> nn.Module:
    """Return the denoiser of a pipeline, or a `Relay` of those that take turns in it.

    Raises:
        PipelineError: It has none.
    """
    found = denoiser_part(pipe, "transformer", "unet")
    if found is None:
        raise PipelineError(
            f"{type(pipe).__name__} has neither a transformer nor a unet, but "
            f"{sorted(pipe.components)}"
        )
    return found


def sampler_of(
    pipe: Any,
    sample: Callable[[int], object],
    *,
    samples: int = 1,
    branches: Sequence[str] = (),
    solver: str | None = None,
) -> Sampler:
    """Return the sampler of a pipeline, for `calibrate`, `transfer`, `fit` and `evaluate`.

    The final latent is what the pipeline gives to its decoder while `sample` runs, if it decodes
    once; else what `sample` returns, if that is a tensor.

    Example:
        >>> def sample(seed: int) -> None:
        ...     pipe([207], generator=torch.Generator().manual_seed(seed))
        >>> calibration = calibrate(sampler_of(pipe, sample), seeds=range(10))

    Args:
        pipe: A diffusers pipeline with a denoiser that the package has an adapter for.
        sample: Calls the pipeline once, from the noise of the given seed.
        samples: Samples in the batch of one run, at least 1.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them.
        solver: Name of the solver, where there is no scheduler to name it.

    Raises:
        PipelineError: The pipeline has no denoiser.
        AdapterError: There is no adapter for it.
        SamplerError: `samples` is below 1.
    """
    denoiser = denoiser_of(pipe)
    return diffusers_sampler(
        pipe,
        denoiser,
        adapter_for(members_of(denoiser)[0]),
        sample,
        known=known_class(pipe, PIPELINES),
        solver=solver,
        branches=branches,
        samples=samples,
    )


def cached_pipeline(
    pipe: Any,
    schedule: Schedule,
    *,
    branches: Sequence[str] | None = None,
    solver: str | None = None,
) -> AbstractContextManager[CacheStats]:
    """Run a pipeline by `schedule` inside a `with` block; it is restored exactly at the end.

    Example:
        >>> with cached_pipeline(pipe, Schedule.load("schedule.json")) as stats:
        ...     image = pipe([207], num_inference_steps=50).images[0]

    Args:
        pipe: A diffusers pipeline with a denoiser that the package has an adapter for.
        schedule: What to compute and what to reuse.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them; those of the calibration if not given.
        solver: Name of the solver, where there is no scheduler to name it.

    Yields:
        Statistics, updated while the pipeline runs.

    Raises:
        PipelineError: The pipeline has no denoiser.
        SmoothCacheError: See `smoothcache_core.cached`.
    """
    return cached_sampler(sampler_of(pipe, pipe), schedule, branches=branches, solver=solver)
