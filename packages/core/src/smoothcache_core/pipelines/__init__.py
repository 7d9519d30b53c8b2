"""Pipelines of other libraries, taken apart into what `calibrate` and `cached` need."""

from smoothcache_core.calls.guidance import announcing_guidance
from smoothcache_core.pipelines.adapting import (
    adapter_for_schedule,
    adapter_or_whole,
    chosen_adapter,
)
from smoothcache_core.pipelines.announcing import pipeline_announcing
from smoothcache_core.pipelines.diffusers_shaped import PipelineClass, diffusers_sampler
from smoothcache_core.pipelines.family import PipelineFamily
from smoothcache_core.pipelines.pipelines import cached_sampler, pipeline_sampler
from smoothcache_core.pipelines.prompted import PipelineSampler
from smoothcache_core.relay import Relay
from smoothcache_core.sampling.conditioned import ConditionedSampler
from smoothcache_core.sampling.seeding import devices_of, seeded_globally

__all__ = [
    "ConditionedSampler",
    "PipelineClass",
    "PipelineFamily",
    "PipelineSampler",
    "Relay",
    "adapter_for_schedule",
    "adapter_or_whole",
    "announcing_guidance",
    "cached_sampler",
    "chosen_adapter",
    "devices_of",
    "diffusers_sampler",
    "pipeline_announcing",
    "pipeline_sampler",
    "seeded_globally",
]
