"""Small random parts of Open-Sora v1.2, as its pipeline has them."""

from typing import Any

import torch
from smoothcache_video.open_sora import AutoencoderKLOpenSora

SMALL_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "filters": 32,
    "num_res_blocks": 1,
}


def video_autoencoder(**changed: Any) -> AutoencoderKLOpenSora:
    """Return a video autoencoder of half the sides and a quarter of the frames."""
    torch.manual_seed(0)
    return AutoencoderKLOpenSora(**SMALL_AUTOENCODER | changed).eval()
