"""SmoothCache for image diffusion transformers: adapters of image models, and diffusers pipelines.

A name is loaded when it is first used, so that `smoothcache-image --help` does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from smoothcache_image._errors import PipelineError as PipelineError
    from smoothcache_image._loading import (
        digits_folder as digits_folder,
        load_pipeline as load_pipeline,
    )
    from smoothcache_image._pipelines import (
        cached_pipeline as cached_pipeline,
        sampler_of as sampler_of,
    )

_HOMES = {
    **dict.fromkeys(("ADAPTERS", "DIT", "FACEBOOK_DIT", "FLUX", "HUNYUAN_DIT"), "_adapters"),
    **dict.fromkeys(("LUMINA2", "PIXART", "QWEN_IMAGE", "SANA", "SD3", "Z_IMAGE"), "_adapters"),
    "adapter_for": "_adapters",
    "PipelineError": "_errors",
    "digits_folder": "_loading",
    "load_pipeline": "_loading",
    "cached_pipeline": "_pipelines",
    "sampler_of": "_pipelines",
}

__version__ = version("smoothcache-image")

__all__ = [
    "ADAPTERS",
    "DIT",
    "FACEBOOK_DIT",
    "FLUX",
    "HUNYUAN_DIT",
    "LUMINA2",
    "PIXART",
    "QWEN_IMAGE",
    "SANA",
    "SD3",
    "Z_IMAGE",
    "PipelineError",
    "adapter_for",
    "cached_pipeline",
    "digits_folder",
    "load_pipeline",
    "sampler_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
