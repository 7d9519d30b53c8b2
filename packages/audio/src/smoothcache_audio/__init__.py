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
    from smoothcache_audio._metrics import (
        digit_metrics as digit_metrics,
        digit_summaries as digit_summaries,
        waveform_metrics as waveform_metrics,
    )
    from smoothcache_audio._pictures import (
        SoundRow as SoundRow,
        save_wav as save_wav,
        spectrogram_sheet as spectrogram_sheet,
        waveform_overlay as waveform_overlay,
    )
    from smoothcache_audio._pipelines import (
        cached_pipeline as cached_pipeline,
        sampler_of as sampler_of,
    )
    from smoothcache_audio._published import (
        clap_summary as clap_summary,
        load_clap as load_clap,
        load_openl3 as load_openl3,
        load_passt as load_passt,
        openl3_summary as openl3_summary,
        passt_metric as passt_metric,
    )
    from smoothcache_audio._sampling import Sampler as Sampler, prompt_sampler as prompt_sampler

_HOMES = {
    **dict.fromkeys(("ACE_STEP", "ADAPTERS", "LONGCAT_AUDIO", "MINIMAX_MUSIC"), "_adapters"),
    **dict.fromkeys(("STABLE_AUDIO", "STABLE_AUDIO_3", "STABLE_AUDIO_TOOLS"), "_adapters"),
    "adapter_for": "_adapters",
    "PipelineError": "_errors",
    "load_model": "_loading",
    "shipped_folder": "_loading",
    **dict.fromkeys(("digit_metrics", "digit_summaries", "waveform_metrics"), "_metrics"),
    **dict.fromkeys(("SoundRow", "save_wav"), "_pictures"),
    **dict.fromkeys(("spectrogram_sheet", "waveform_overlay"), "_pictures"),
    "cached_pipeline": "_pipelines",
    "sampler_of": "_pipelines",
    **dict.fromkeys(("clap_summary", "load_clap"), "_published"),
    **dict.fromkeys(("load_openl3", "openl3_summary"), "_published"),
    **dict.fromkeys(("load_passt", "passt_metric"), "_published"),
    "Sampler": "_sampling",
    "prompt_sampler": "_sampling",
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
    "SoundRow",
    "adapter_for",
    "cached_pipeline",
    "clap_summary",
    "digit_metrics",
    "digit_summaries",
    "load_clap",
    "load_model",
    "load_openl3",
    "load_passt",
    "openl3_summary",
    "passt_metric",
    "prompt_sampler",
    "sampler_of",
    "save_wav",
    "shipped_folder",
    "spectrogram_sheet",
    "waveform_metrics",
    "waveform_overlay",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
