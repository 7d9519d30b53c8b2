"""Open-Sora v1.2 in plain torch and diffusers: denoiser, rectified flow, autoencoder, pipeline."""

from smoothcache_video.open_sora.autoencoder import AutoencoderKLOpenSora
from smoothcache_video.open_sora.long import long_video
from smoothcache_video.open_sora.pipeline import OpenSoraPipeline, OpenSoraPipelineOutput
from smoothcache_video.open_sora.published import (
    load_autoencoder,
    load_denoiser,
    load_published,
)
from smoothcache_video.open_sora.scheduler import RectifiedFlowScheduler
from smoothcache_video.open_sora.stdit3 import STDiT3

__all__ = [
    "AutoencoderKLOpenSora",
    "OpenSoraPipeline",
    "OpenSoraPipelineOutput",
    "RectifiedFlowScheduler",
    "STDiT3",
    "load_autoencoder",
    "load_denoiser",
    "load_published",
    "long_video",
]
