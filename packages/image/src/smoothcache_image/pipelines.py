"""The sampler of a diffusers pipeline, and the pipeline run by a schedule."""

from smoothcache_core.pipelines import PipelineFamily

from smoothcache_image.adapters import ADAPTERS, PIPELINES

FAMILY = PipelineFamily(adapters=ADAPTERS, classes=PIPELINES)
"""What this package knows of models and pipelines."""

denoiser_of = FAMILY.denoiser_of
sampler_of = FAMILY.sampler_of
cached_pipeline = FAMILY.cached_pipeline
