"""Small random parts of Open-Sora v1.2, as its pipeline has them and as it was published."""

from pathlib import Path
from typing import Any

import torch
from kit.text_encoders import save_text_encoder
from safetensors.torch import save_file
from smoothcache_video.open_sora import AutoencoderKLOpenSora, STDiT3

WORDS, TEXT_CHANNELS = 5, 12

SMALL_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "filters": 32,
    "num_res_blocks": 1,
}

SMALL_DENOISER: dict[str, Any] = {
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "caption_channels": TEXT_CHANNELS,
    "model_max_length": WORDS,
}


def video_autoencoder(**changed: Any) -> AutoencoderKLOpenSora:
    """Return a video autoencoder of half the sides and a quarter of the frames."""
    torch.manual_seed(0)
    return AutoencoderKLOpenSora(**SMALL_AUTOENCODER | changed).eval()


def denoiser(**changed: Any) -> STDiT3:
    """Return a denoiser with weights that do something."""
    torch.manual_seed(0)
    model = STDiT3(**SMALL_DENOISER | changed).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.2)
    return model


def save_published(folder: Path) -> dict[str, Path]:
    """Save small parts as the large ones are published, and return where, by part."""
    parts = {"denoiser": folder / "denoiser", "autoencoder": folder / "autoencoder.pt"}
    parts["denoiser"].mkdir(parents=True)
    save_file(dict(denoiser().state_dict()), parts["denoiser"] / "model.safetensors")
    torch.save(video_autoencoder().state_dict(), parts["autoencoder"])
    encoder = save_text_encoder(folder / "t5", width=TEXT_CHANNELS, longest=WORDS)
    return parts | {"text_encoder": encoder}
