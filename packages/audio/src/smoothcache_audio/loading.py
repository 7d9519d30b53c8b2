"""Loading a model of stable-audio-tools, or a pipeline of diffusers.

Nothing heavy is loaded before a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from smoothcache_core.documents import read_document
from smoothcache_core.errors import PipelineError

if TYPE_CHECKING:
    import torch
    from smoothcache_core.pipelines.loading import Dtype

Library = Literal["auto", "stable-audio-tools", "diffusers"]

SPOKEN_DIGITS = "spoken-digits"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SHIPPED_GUIDANCE = 2.5
"""Guidance that the shipped models sound best with."""

SHIPPED_SIGMAS = (0.03, 100.0)
"""Noise that solvers end and begin with for the shipped models."""

WORD_SECONDS = 0.46
"""How long the words of the shipped models are asked to be; they learned from 0.36 to 0.56."""

SHIPPED: Mapping[str, str] = MappingProxyType({SPOKEN_DIGITS: "spoken-digits"})
"""The small models that come with this package, by name, and the folders they are in."""

_CONFIG = "model_config.json"
_WEIGHTS = ("model.safetensors", "model.ckpt")
_INDEX = "model_index.json"


def shipped_folder(model: str = SPOKEN_DIGITS) -> Path:
    """Return the folder of a shipped model, in the layout of stable-audio-tools.

    Raises:
        PipelineError: No such model comes with this package.
    """
    from smoothcache_core.pipelines import loading

    return loading.shipped_folder("smoothcache_audio", SHIPPED, model)


def load_model(
    model: str | Path = SPOKEN_DIGITS,
    *,
    library: Library = "auto",
    device: str = "auto",
    dtype: Dtype = "auto",
) -> Any:
    """Load a model of stable-audio-tools, or a pipeline of diffusers, onto a device.

    Example:
        >>> model = load_model("stabilityai/stable-audio-open-1.0", library="stable-audio-tools")

    Args:
        model: `"spoken-digits"` (the shipped model), a folder with `model_config.json` and
            `model.safetensors` or `model.ckpt` (stable-audio-tools) or with `model_index.json`
            (diffusers), or a name on the model hub.
        library: Which of the two to load with. `"auto"` takes stable-audio-tools where the model
            is there for it and the library is installed, else diffusers.
        device: A torch device, or `"auto"`: CUDA if there is any, else the CPU.
        dtype: Data type of the weights; `"auto"` is float32 on the CPU and float16 elsewhere. The
            conditioners and the autoencoder of stable-audio-tools keep the data type they have.

    Returns:
        What `generate_diffusion_cond` takes, with its length in audio samples as `sample_size`; or
        a pipeline.

    Raises:
        PipelineError: There is no such model, device or library, or it is no model that generates
            by a transformer.
    """
    import torch
    from smoothcache_core.pipelines.loading import device_named, dtype_named, told_in_one_line

    place = device_named(device)
    source = _source(model, library)
    with told_in_one_line(model, SHIPPED, library=source.library):
        return source.load(place, dtype_named(dtype, place, accelerated=torch.float16))


@dataclass(frozen=True)
class _Source:
    """Where a model is, and how to load it from there."""

    library: str
    load: Callable[[torch.device, torch.dtype], Any]


def _source(model: str | Path, library: Library) -> _Source:
    from smoothcache_core.pipelines.loading import folder_or_name

    shipped = shipped_folder(str(model)) if str(model) in SHIPPED else None
    place = shipped or folder_or_name(model, SHIPPED, folder="folder")
    if isinstance(place, Path):
        found = _library_of(place, library, str(model))
        load = _load_folder if found == "stable-audio-tools" else _load_pipeline
        return _Source(found, lambda device, dtype: load(place, device, dtype))
    name = place
    if library == "diffusers" or (library == "auto" and not _has_stable_audio_tools()):
        return _Source("diffusers", lambda device, dtype: _load_pipeline(name, device, dtype))
    return _Source(
        "stable-audio-tools" if library != "auto" else "stable-audio-tools or diffusers",
        lambda device, dtype: _load_name(name, device, dtype, fallback=library == "auto"),
    )


def _library_of(folder: Path, library: Library, name: str) -> str:
    """Return which library a folder is loaded with."""
    files = {"stable-audio-tools": _CONFIG, "diffusers": _INDEX}
    there = [key for key, file in files.items() if (folder / file).exists()]
    if not there or library not in ("auto", *there):
        wanted = files.values() if library == "auto" else [files[library]]
        raise PipelineError(
            f"{name!r} is no model folder for {'either library' if library == 'auto' else library}"
            f": it has no {' and no '.join(wanted)}"
        )
    if library != "auto":
        return library
    if len(there) > 1 and not _has_stable_audio_tools():
        return "diffusers"
    return there[0]


def _has_stable_audio_tools() -> bool:
    from smoothcache_audio.stable_audio_tools import missing_packages

    return not missing_packages()


# ---------------------------------------------------------------------------- stable-audio-tools


def _load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    weights = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if weights is None:
        raise PipelineError(f"{str(folder)!r} has no {' and no '.join(_WEIGHTS)}")
    return _build(folder / _CONFIG, weights, device, dtype)


def _load_name(name: str, device: torch.device, dtype: torch.dtype, *, fallback: bool) -> Any:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from smoothcache_audio.stable_audio_tools import require

    if not fallback:
        require()
    try:
        config = hf_hub_download(name, _CONFIG)
    except RemoteEntryNotFoundError:
        if fallback:
            return _load_pipeline(name, device, dtype)
        raise
    try:
        weights = hf_hub_download(name, _WEIGHTS[0])
    except RemoteEntryNotFoundError:
        weights = hf_hub_download(name, _WEIGHTS[1])
    return _build(Path(config), Path(weights), device, dtype)


def _build(file: Path, weights: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Build a model from its configuration as stable-audio-tools does, and load its weights."""
    from smoothcache_audio.stable_audio_tools import quiet_loading, require

    config = _read_config(file)
    require()
    with quiet_loading():
        from stable_audio_tools.models.factory import create_model_from_config
        from stable_audio_tools.models.utils import load_ckpt_state_dict

        model: Any = create_model_from_config(config)
        model.load_state_dict(load_ckpt_state_dict(str(weights)))
    model.sample_size = config["sample_size"]
    model.eval().requires_grad_(False)
    model.model.to(dtype)
    return model.to(device)


def _read_config(file: Path) -> dict[str, Any]:
    """Return a configuration whose model generates from conditions by a transformer.

    Raises:
        PipelineError: It is another one.
    """
    from smoothcache_core.pipelines.loading import first_line

    config = read_document(file, "configuration", PipelineError, constants=True)
    try:
        kind, denoiser = config["model_type"], config["model"].get("diffusion", {}).get("type")
        sizes = config["sample_size"], config["sample_rate"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise PipelineError(
            f"{str(file)!r} is no configuration of stable-audio-tools, with a model_type, a model, "
            f"a sample_size and a sample_rate: {first_line(error)}"
        ) from error
    if kind != "diffusion_cond" or denoiser != "dit":
        raise PipelineError(
            f"{str(file)!r} is of a {kind!r} model that denoises by {denoiser!r}; only "
            "'diffusion_cond' models that denoise by 'dit', a transformer, can be cached"
        )
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise PipelineError(f"{str(file)!r}: sample_size and sample_rate are {sizes}")
    _refuse_pickles(config, file)
    return config


_UNPICKLES = ("clap_text", "clap_audio", "dac_pretrained", "audiocraft_pretrained")
"""Types of conditioners and autoencoders that stable-audio-tools 0.0.19 loads by unpickling, which
runs whatever code is in the file."""


def _refuse_pickles(config: Any, file: Path) -> None:
    """Refuse a configuration by which the library would unpickle files that it names.

    Raises:
        PipelineError: Something in it is of such a type, or names a checkpoint that is no
            safetensors file.
    """
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        if not isinstance(part, dict):
            continue
        parts += part.values()
        if part.get("type") in _UNPICKLES:
            raise PipelineError(
                f"{str(file)!r} has a {part['type']!r}, which is loaded from a pickle, and pickles "
                "can run any code; only models whose parts are in the weights beside it are loaded"
            )
        for key, path in part.items():
            named = key.endswith(("ckpt_path", "checkpoint_path")) and path is not None
            if named and not (isinstance(path, str) and path.endswith(".safetensors")):
                raise PipelineError(
                    f"{str(file)!r} names {path!r} as its {key}, which may be a pickle, and those "
                    "can run any code; convert it to safetensors"
                )


# ---------------------------------------------------------------------------- diffusers


def _load_pipeline(source: str | Path, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging as diffusers_log
    from smoothcache_core.pipelines.loading import load_diffusers
    from transformers.utils import logging as transformers_log

    logs = diffusers_log, transformers_log
    return load_diffusers(DiffusionPipeline, source, dtype=dtype, logs=logs).to(device)
