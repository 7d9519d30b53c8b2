"""Calibrating, fitting and caching the denoiser of a diffusers pipeline."""

from __future__ import annotations

from functools import partial
from typing import Any

from smoothcache_core.pipelines import PipelineCaching, PipelineParts, pipeline_announcing
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


def parts_of(pipe: Any) -> PipelineParts:
    """Take a pipeline apart.

    Raises:
        PipelineError: It has no denoiser.
        AdapterError: There is no adapter for it.
    """
    denoiser = denoiser_of(pipe)
    return PipelineParts(
        denoiser=denoiser,
        adapter=adapter_for(denoiser),
        scheduler=pipe.scheduler,
        decoder=pipe.components.get("vae"),
        around=partial(pipeline_announcing, pipe),
    )


_CACHING = PipelineCaching(parts_of)
cached_pipeline = _CACHING.cached_pipeline
calibrate_pipeline = _CACHING.calibrate_pipeline
transfer_pipeline = _CACHING.transfer_pipeline
fit_pipeline = _CACHING.fit_pipeline
