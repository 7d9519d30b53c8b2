"""Calibrating, fitting and caching models of stable-audio-tools, and pipelines of diffusers."""

from __future__ import annotations

from functools import partial
from typing import Any

from smoothcache_core.pipelines import PipelineCaching, PipelineParts, pipeline_announcing
from torch import Tensor, nn

from smoothcache_audio._adapters import adapter_for
from smoothcache_audio._errors import PipelineError
from smoothcache_audio._stable_audio_tools import (
    denoiser_in,
    is_stable_audio_tools,
    runs_announced,
)

LENGTH_FIRST = ("AceStepPipeline", "LongCatAudioDiTPipeline")
"""Pipelines whose denoiser's latent is (batch, length, channels), as opposed to their decoder's."""


def denoiser_of(model: Any) -> nn.Module:
    """Return the denoiser of a model of stable-audio-tools, or of a pipeline of diffusers.

    Raises:
        PipelineError: It has none.
    """
    if is_stable_audio_tools(model):
        return denoiser_in(model)
    components = getattr(model, "components", {})
    if components.get("transformer") is None:
        raise PipelineError(
            f"{type(model).__name__} is neither a model that stable-audio-tools' factory built for "
            "generation nor a diffusers pipeline with a transformer"
        )
    return components["transformer"]


def is_length_first(pipe: Any) -> bool:
    """Return whether the latent of a pipeline's denoiser is (batch, length, channels)."""
    return type(pipe).__name__ in LENGTH_FIRST


def parts_of(model: Any) -> PipelineParts:
    """Take a model of stable-audio-tools, or a pipeline of diffusers, apart.

    Raises:
        PipelineError: It has no denoiser.
        AdapterError: There is no adapter for it.
    """
    denoiser = denoiser_of(model)
    adapter = adapter_for(denoiser)
    if is_stable_audio_tools(model):
        return PipelineParts(
            denoiser=denoiser,
            adapter=adapter,
            decoder=model.pretransform,
            around=partial(runs_announced, model),
        )
    return PipelineParts(
        denoiser=denoiser,
        adapter=adapter,
        scheduler=model.scheduler,
        decoder=model.components.get("vae"),
        latent_of=_transposed if is_length_first(model) else None,
        around=partial(pipeline_announcing, model),
    )


def _transposed(latents: Tensor) -> Tensor:
    return latents.transpose(1, 2)


_CACHING = PipelineCaching(parts_of)
cached_pipeline = _CACHING.cached_pipeline
calibrate_pipeline = _CACHING.calibrate_pipeline
transfer_pipeline = _CACHING.transfer_pipeline
fit_pipeline = _CACHING.fit_pipeline
