"""The sampler of a diffusers pipeline, and the pipeline run by a schedule."""

from smoothcache_core.pipelines import PipelineFamily

from smoothcache_image.adapters import ADAPTERS, PIPELINES

_FAMILY = PipelineFamily(adapters=ADAPTERS, classes=PIPELINES)

denoiser_of = _FAMILY.denoiser_of
sampler_of = _FAMILY.sampler_of
cached_pipeline = _FAMILY.cached_pipeline
