"""SmoothCache for image diffusion transformers: the adapters of image models."""

from importlib.metadata import version

from smoothcache_image._adapters import (
    ADAPTERS as ADAPTERS,
    DIT as DIT,
    FACEBOOK_DIT as FACEBOOK_DIT,
    FLUX as FLUX,
    HUNYUAN_DIT as HUNYUAN_DIT,
    LUMINA2 as LUMINA2,
    PIXART as PIXART,
    QWEN_IMAGE as QWEN_IMAGE,
    SANA as SANA,
    SD3 as SD3,
    Z_IMAGE as Z_IMAGE,
    adapter_for as adapter_for,
)

__version__ = version("smoothcache-image")

__all__ = [name for name in dir() if not name.startswith("_")]
