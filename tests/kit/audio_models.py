"""Small random audio models of the real classes, one per adapter of `smoothcache_audio`."""

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import torch
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
from diffusers.models.transformers.stable_audio_transformer import StableAudioDiTModel
from diffusers.models.transformers.transformer_longcat_audio_dit import LongCatAudioDiTTransformer
from diffusers.models.transformers.transformer_minimax_music3 import (
    MiniMaxMusic3Transformer1DModel,
)
from diffusers.models.transformers.transformer_stable_audio3 import StableAudio3DiTModel
from kit.adapter_contract import BATCH, Case
from smoothcache_audio import (
    ACE_STEP,
    LONGCAT_AUDIO,
    MINIMAX_MUSIC,
    STABLE_AUDIO,
    STABLE_AUDIO_3,
    STABLE_AUDIO_TOOLS,
)
from torch import Tensor, nn

SAMPLE_RATE = 8000
PATCH = 8
LATENTS = 16
"""Latents of one sample, unless told otherwise."""

_CODER = {"channels": 4, "c_mults": [1], "strides": [PATCH], "latent_dim": PATCH}
AUTOENCODER = {
    "type": "autoencoder",
    "config": {
        "encoder": {"type": "oobleck", "config": {"in_channels": 1, **_CODER}},
        "decoder": {"type": "oobleck", "config": {"out_channels": 1, **_CODER}},
        "latent_dim": PATCH,
        "downsampling_ratio": PATCH,
        "io_channels": 1,
    },
}


def stable_audio_tools_config(
    *, objective: str = "v", diffusion: dict[str, Any] | None = None, decoding: bool = False
) -> dict[str, Any]:
    """Return the configuration of a small class-conditional model.

    Args:
        objective: What it predicts.
        diffusion: Further settings of the transformer.
        decoding: Whether it has an autoencoder with parameters, which the library needs to decode.
    """
    patches = {"type": "patched", "config": {"channels": 1, "patch_size": PATCH}}
    transformer = {
        "io_channels": PATCH,
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 2,
        "cond_token_dim": 32,
        "global_cond_dim": 32,
        "project_cond_tokens": False,
        "transformer_type": "continuous_transformer",
    }
    return {
        "model_type": "diffusion_cond",
        "sample_size": LATENTS * PATCH,
        "sample_rate": SAMPLE_RATE,
        "audio_channels": 1,
        "model": {
            "pretransform": AUTOENCODER if decoding else patches,
            "conditioning": {
                "cond_dim": 32,
                "configs": [
                    {"id": "digit", "type": "int", "config": {"min_val": 0, "max_val": 9}},
                    {"id": "seconds_total", "type": "number", "config": {"max_val": 10}},
                ],
            },
            "diffusion": {
                "type": "dit",
                "diffusion_objective": objective,
                "cross_attention_cond_ids": ["digit", "seconds_total"],
                "global_cond_ids": ["seconds_total"],
                "config": {**transformer, **(diffusion or {})},
            },
            "io_channels": PATCH,
        },
    }


def stable_audio_tools_model(seed: int = 0, **settings: Any) -> Any:
    """Return a small model of stable-audio-tools.

    Args:
        seed: See `model_from`.
        settings: See `stable_audio_tools_config`.
    """
    return model_from(stable_audio_tools_config(**settings), seed)


def model_from(config: dict[str, Any], seed: int = 0) -> Any:
    """Return a model of stable-audio-tools, in float32 and eval mode, nothing left at zero.

    Args:
        config: Its configuration.
        seed: Seed of its weights.
    """
    torch.manual_seed(seed)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stable_audio_tools.models.factory import create_model_from_config

        model: Any = create_model_from_config(config)
    randomise(model)
    model.sample_size = config["sample_size"]
    return model.eval().requires_grad_(False)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Fill the parameters that are zero, at which every output would be zero too."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)


# ---------------------------------------------------------------------------- the cases


def diffusion_transformer() -> nn.Module:
    return stable_audio_tools_model(diffusion={"conformer": True}).model.model


def stable_audio() -> StableAudioDiTModel:
    return StableAudioDiTModel(
        sample_size=LATENTS,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        cross_attention_dim=32,
        cross_attention_input_dim=12,
        global_states_input_dim=24,
        time_proj_dim=16,
    )


def stable_audio_3() -> StableAudio3DiTModel:
    return StableAudio3DiTModel(
        io_channels=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        cond_token_dim=12,
        global_cond_dim=12,
        local_add_cond_dim=9,
        timestep_features_dim=16,
        num_memory_tokens=3,
    )


def ace_step() -> AceStepTransformer1DModel:
    return AceStepTransformer1DModel(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        in_channels=24,
        audio_acoustic_hidden_dim=8,
        encoder_hidden_size=12,
        sliding_window=4,
    )


def longcat_audio() -> LongCatAudioDiTTransformer:
    return LongCatAudioDiTTransformer(
        dit_dim=32, dit_depth=2, dit_heads=2, dit_text_dim=12, latent_dim=8
    )


def minimax_music() -> MiniMaxMusic3Transformer1DModel:
    return MiniMaxMusic3Transformer1DModel(
        in_channels=8,
        condition_dim=12,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        ff_inner_dim=48,
        rotary_dim=8,
        fourier_embedding_dim=16,
    )


def rotary(length: int, size: int) -> tuple[Tensor, Tensor]:
    angles = torch.outer(torch.arange(length), 0.5 ** torch.arange(size // 2)).repeat(1, 2)
    return angles.cos(), angles.sin()


FROM_ONE = (1.0, 0.7, 0.4, 0.1)
FROM_ZERO = (0.0, 0.3, 0.6, 0.9)
TEXT = 5

CASES = (
    Case(
        adapter=STABLE_AUDIO_TOOLS,
        build=diffusion_transformer,
        latent=(PATCH, LATENTS),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "cross_attn_cond": torch.randn(BATCH, TEXT, 32),
            "global_embed": torch.randn(BATCH, 32),
            "cfg_scale": 3.0,
        },
    ),
    Case(
        adapter=STABLE_AUDIO,
        build=stable_audio,
        latent=(8, LATENTS),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "encoder_hidden_states": torch.randn(BATCH, TEXT, 12),
            "global_hidden_states": torch.randn(BATCH, 1, 24),
            "rotary_embedding": rotary(LATENTS + 1, 8),
            "return_dict": False,  # its output class is deprecated where it is imported from
        },
    ),
    Case(
        adapter=STABLE_AUDIO_3,
        build=stable_audio_3,
        latent=(8, LATENTS),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "encoder_hidden_states": torch.randn(BATCH, TEXT, 12),
            "global_hidden_states": torch.randn(BATCH, 12),
        },
    ),
    Case(
        adapter=ACE_STEP,
        build=ace_step,
        latent=(LATENTS, 8),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "encoder_hidden_states": torch.randn(BATCH, TEXT, 12),
            "context_latents": torch.randn(BATCH, LATENTS, 16),
            "timestep_r": torch.zeros(BATCH),
        },
    ),
    Case(
        adapter=LONGCAT_AUDIO,
        build=longcat_audio,
        latent=(LATENTS, 8),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "encoder_hidden_states": torch.randn(BATCH, TEXT, 12),
            "encoder_attention_mask": torch.ones(BATCH, TEXT, dtype=torch.bool),
            "attention_mask": torch.ones(BATCH, LATENTS, dtype=torch.bool),
            "latent_cond": torch.randn(BATCH, LATENTS, 8),
        },
    ),
    Case(
        adapter=MINIMAX_MUSIC,
        build=minimax_music,
        latent=(8, LATENTS),
        timesteps=FROM_ZERO,
        conditions=lambda: {"encoder_hidden_states": torch.randn(BATCH, LATENTS, 12)},
    ),
)
