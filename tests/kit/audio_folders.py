"""Tiny random audio models of real classes, saved as folders that load as any model does."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio.pipeline_stable_audio import StableAudioPipeline
from diffusers.schedulers.scheduling_cosine_dpmsolver_multistep import (
    CosineDPMSolverMultistepScheduler,
)
from kit.audio_models import (
    PATCH,
    SAMPLE_RATE,
    randomise,
    stable_audio,
    stable_audio_tools_config,
    stable_audio_tools_model,
)
from kit.text_encoders import save_text_encoder
from safetensors.torch import save_model
from smoothcache_audio.stable_audio_tools import quiet_loading
from transformers import PreTrainedTokenizerFast, T5EncoderModel


def save_stable_audio_tools(folder: Path, **settings: Any) -> Path:
    """Save a class-conditional model of ten classes in the layout of stable-audio-tools.

    Args:
        folder: Where to.
        settings: See `audio_models.stable_audio_tools_config`.
    """
    config = stable_audio_tools_config(**settings)
    return _save(folder, config, stable_audio_tools_model(**settings))


def _save(folder: Path, config: dict[str, Any], model: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_config.json").write_text(json.dumps(config))
    save_model(model, str(folder / "model.safetensors"))
    return folder


def save_stable_audio_open(folder: Path) -> Path:
    """Save a tiny text-conditional model in the layout of stable-audio-tools.

    Its text encoder has the size of one that the library knows, and lies beside the folder: with
    that place as the working directory, the library finds it by name.
    """
    save_text_encoder(folder.parent / "t5-small", width=512)
    config = stable_audio_tools_config()
    config["model"]["conditioning"]["configs"] = [
        {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-small", "max_length": 6}},
        {"id": "seconds_start", "type": "number", "config": {"max_val": 10}},
        {"id": "seconds_total", "type": "number", "config": {"max_val": 10}},
    ]
    config["model"]["pretransform"] = {"type": "autoencoder", "config": _autoencoder()}
    diffusion = config["model"]["diffusion"]
    diffusion["cross_attention_cond_ids"] = ["prompt", "seconds_start", "seconds_total"]
    diffusion["global_cond_ids"] = ["seconds_start", "seconds_total"]
    diffusion["config"]["global_cond_dim"] = 64
    from stable_audio_tools.models.factory import create_model_from_config

    torch.manual_seed(0)
    with contextlib.chdir(folder.parent), quiet_loading():
        model = create_model_from_config(config)
    randomise(model)
    return _save(folder, config, model)


def save_stable_audio(folder: Path) -> Path:
    """Save a tiny text-conditional pipeline of diffusers."""
    torch.manual_seed(0)
    encoder = save_text_encoder(folder.parent / "encoder", width=12)
    scheduler: Any = CosineDPMSolverMultistepScheduler()  # the annotation names another
    with quiet_loading():
        vae = AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[2, 4],
            channel_multiples=[1, 2],
            decoder_channels=8,
            decoder_input_channels=8,
            audio_channels=1,
            sampling_rate=SAMPLE_RATE,
        )
    projection = StableAudioProjectionModel(
        text_encoder_dim=12, conditioning_dim=12, min_value=0, max_value=10
    )
    pipe = StableAudioPipeline(
        vae=vae,
        text_encoder=T5EncoderModel.from_pretrained(encoder),
        projection_model=projection,
        tokenizer=PreTrainedTokenizerFast.from_pretrained(encoder),
        transformer=stable_audio(),
        scheduler=scheduler,
    )
    randomise(pipe.transformer)
    pipe.save_pretrained(folder)
    return folder


def _autoencoder() -> dict[str, Any]:
    half: dict[str, Any] = {"channels": 8, "c_mults": [1], "strides": [PATCH]}
    encoder = {**half, "in_channels": 1, "latent_dim": 2 * PATCH}
    decoder = {**half, "out_channels": 1, "latent_dim": PATCH}
    return {
        "encoder": {"type": "oobleck", "config": encoder},
        "decoder": {"type": "oobleck", "config": decoder},
        "bottleneck": {"type": "vae"},
        "latent_dim": PATCH,
        "downsampling_ratio": PATCH,
        "io_channels": 1,
    }
