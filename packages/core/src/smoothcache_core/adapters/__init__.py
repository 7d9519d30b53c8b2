"""What is known about a family of models, as data: where its sites are and how a call is read."""

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern, SpanPattern
from smoothcache_core.adapters.search import find_adapter
from smoothcache_core.adapters.signature import latent_and_timestep, whole_evaluations
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Site
from smoothcache_core.adapters.unets import unet_attention, unet_blocks, unet_layers

__all__ = [
    "DENOISER",
    "GUIDANCE",
    "Adapter",
    "LatentPart",
    "PatternAdapter",
    "Site",
    "SitePattern",
    "SpanPattern",
    "find_adapter",
    "latent_and_timestep",
    "unet_attention",
    "unet_blocks",
    "unet_layers",
    "whole_evaluations",
]
