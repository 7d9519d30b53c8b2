"""Pipelines of other libraries, taken apart into what `calibrate` and `cached` need."""

from smoothcache_core.calls.guidance import announcing_guidance
from smoothcache_core.pipelines.announcing import pipeline_announcing
from smoothcache_core.pipelines.pipelines import PipelineCaching, PipelineParts
from smoothcache_core.sampling.seeding import devices_of, seeded_globally

__all__ = [
    "PipelineCaching",
    "PipelineParts",
    "announcing_guidance",
    "devices_of",
    "pipeline_announcing",
    "seeded_globally",
]
