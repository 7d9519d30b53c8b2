"""Samplers of stable-audio-tools' models and diffusers' pipelines, and running them cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from smoothcache_core import Sampler, Schedule
from smoothcache_core.adapters import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import (
    adapter_for_schedule,
    cached_sampler,
    chosen_adapter,
    diffusers_sampler,
    pipeline_sampler,
)
from smoothcache_core.pipelines.diffusers_shaped import denoiser_part, known_class
from smoothcache_core.runtime import CacheStats
from torch import nn

from smoothcache_audio.adapters import ADAPTERS, PIPELINES
from smoothcache_audio.stable_audio_tools import (
    denoiser_in,
    is_stable_audio_tools,
    runs_announced,
)


def denoiser_of(model: Any) -> nn.Module:
    """Return the denoiser of a model of stable-audio-tools, or of a pipeline of diffusers.

    Raises:
        PipelineError: It has none.
    """
    if is_stable_audio_tools(model):
        return denoiser_in(model)
    found = denoiser_part(model, "transformer", "unet")
    if found is None:
        raise PipelineError(
            f"{type(model).__name__} is neither a model that stable-audio-tools' factory built for "
            "generation nor a diffusers pipeline with a transformer or a unet"
        )
    return found


def sampler_of(
    model: Any,
    sample: Callable[[int], object],
    *,
    adapter: Adapter | str | None = None,
    samples: int = 1,
    branches: Sequence[str] = (),
    solver: str | None = None,
) -> Sampler:
    """Return the sampler of a model, for `calibrate`, `transfer`, `fit` and `evaluate`.

    The final latent is what the model gives to its decoder while `sample` runs, if it decodes
    once; else what `sample` returns, if that is a tensor.

    Example:
        >>> def sample(seed: int) -> None:
        ...     model("rain", generator=torch.Generator().manual_seed(seed))
        >>> calibration = calibrate(sampler_of(model, sample), seeds=range(10))

    Args:
        model: A model of stable-audio-tools, or a diffusers pipeline.
        sample: Calls the model once, from the noise of the given seed.
        adapter: What is known about the denoiser: an adapter; the name of one in `ADAPTERS`;
            `"structure"`, to have its sites found by two evaluations of `sample`, when they are
            first needed; or `"whole"`, to leave it at whole evaluations. If it is not given, or
            `"auto"`: that of the class, if it is known, else by structure.
        samples: Samples in the batch of one run, at least 1.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            model does not announce them.
        solver: Name of the solver, where there is no scheduler to name it.

    Raises:
        PipelineError: The model has no denoiser.
        AdapterError: There is no adapter of this name, or what the denoiser's arguments mean is not
            known.
        SamplerError: `samples` is below 1.
    """
    denoiser = denoiser_of(model)
    found = chosen_adapter(denoiser, adapter, ADAPTERS)
    if is_stable_audio_tools(model):
        return pipeline_sampler(
            denoiser,
            found,
            sample,
            decoder=model.pretransform,
            solver=solver,
            branches=tuple(branches),
            samples=samples,
            around=partial(runs_announced, model),
        )
    return diffusers_sampler(
        model,
        denoiser,
        found,
        sample,
        known=known_class(model, PIPELINES),
        solver=solver,
        branches=branches,
        samples=samples,
    )


def cached_pipeline(
    model: Any,
    schedule: Schedule,
    *,
    adapter: Adapter | str | None = None,
    branches: Sequence[str] | None = None,
    solver: str | None = None,
) -> AbstractContextManager[CacheStats]:
    """Run a model by `schedule` inside a `with` block; it is restored exactly at the end.

    Example:
        >>> with cached_pipeline(model, Schedule.load("schedule.json")) as stats:
        ...     sound = model("rain", num_inference_steps=100).audios[0]

    Args:
        model: A model of stable-audio-tools, or a diffusers pipeline.
        schedule: What to compute and what to reuse.
        adapter: What is known about the denoiser; see `sampler_of`. If it is not given, it is what
            the schedule records, that of the class, or that for whole evaluations.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            model does not announce them; those of the calibration if not given.
        solver: Name of the solver, where there is no scheduler to name it.

    Yields:
        Statistics, updated while the model runs.

    Raises:
        PipelineError: The model has no denoiser.
        SmoothCacheError: See `smoothcache_core.cached`.
    """
    found = adapter_for_schedule(denoiser_of(model), adapter, ADAPTERS, schedule)
    known = sampler_of(model, _never, adapter=found)
    return cached_sampler(known, schedule, branches=branches, solver=solver)


def _never(seed: int) -> None:
    """Stand in for what samples, where nothing is sampled."""
