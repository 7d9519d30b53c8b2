"""Small random audio models of the real classes."""

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

SAMPLE_RATE = 8000
PATCH = 8
LATENTS = 16
"""Latents of one sample, unless told otherwise."""


def stable_audio_tools_config(
    *, objective: str = "v", diffusion: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the configuration of a small class-conditional model.

    Args:
        objective: What it predicts.
        diffusion: Further settings of the transformer.
    """
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
            "pretransform": {
                "type": "patched",
                "config": {"channels": 1, "patch_size": PATCH},
            },
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
    """Return a small model of stable-audio-tools, in float32 and eval mode, nothing left at zero.

    Args:
        seed: Seed of its weights.
        settings: See `stable_audio_tools_config`.
    """
    torch.manual_seed(seed)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stable_audio_tools.models.factory import create_model_from_config

        model: Any = create_model_from_config(stable_audio_tools_config(**settings))
    randomise(model)
    model.sample_size = LATENTS * PATCH
    return model.eval().requires_grad_(False)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Fill the parameters that are zero, at which every output would be zero too."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
