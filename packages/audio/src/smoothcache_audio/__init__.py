"""SmoothCache for audio diffusion transformers: stable-audio-tools, and diffusers' pipelines.

A name is loaded when it is first used, so that `smoothcache-audio --help` does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothcache_audio._adapters import (
        ACE_STEP as ACE_STEP,
        ADAPTERS as ADAPTERS,
        LONGCAT_AUDIO as LONGCAT_AUDIO,
        MINIMAX_MUSIC as MINIMAX_MUSIC,
        STABLE_AUDIO as STABLE_AUDIO,
        STABLE_AUDIO_3 as STABLE_AUDIO_3,
        STABLE_AUDIO_TOOLS as STABLE_AUDIO_TOOLS,
        adapter_for as adapter_for,
    )
    from smoothcache_audio._errors import PipelineError as PipelineError
    from smoothcache_audio._loading import (
        load_model as load_model,
        shipped_folder as shipped_folder,
    )
    from smoothcache_audio._pipelines import (
        cached_pipeline as cached_pipeline,
        calibrate_pipeline as calibrate_pipeline,
        fit_pipeline as fit_pipeline,
    )
    from smoothcache_audio._sampling import Sampler as Sampler, sampler_of as sampler_of

_HOMES = {
    **dict.fromkeys(("ACE_STEP", "ADAPTERS", "LONGCAT_AUDIO", "MINIMAX_MUSIC"), "_adapters"),
    **dict.fromkeys(("STABLE_AUDIO", "STABLE_AUDIO_3", "STABLE_AUDIO_TOOLS"), "_adapters"),
    "adapter_for": "_adapters",
    "PipelineError": "_errors",
    "load_model": "_loading",
    "shipped_folder": "_loading",
    "cached_pipeline": "_pipelines",
    "calibrate_pipeline": "_pipelines",
    "fit_pipeline": "_pipelines",
    "Sampler": "_sampling",
    "sampler_of": "_sampling",
}

__version__ = version("smoothcache-audio")

__all__ = [
    "ACE_STEP",
    "ADAPTERS",
    "LONGCAT_AUDIO",
    "MINIMAX_MUSIC",
    "STABLE_AUDIO",
    "STABLE_AUDIO_3",
    "STABLE_AUDIO_TOOLS",
    "PipelineError",
    "Sampler",
    "adapter_for",
    "cached_pipeline",
    "calibrate_pipeline",
    "fit_pipeline",
    "load_model",
    "sampler_of",
    "shipped_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
