"""The video autoencoder: published parameters, groups of frames, causality, latents as videos."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from kit.open_sora_models import video_autoencoder
from smoothcache_core.errors import PipelineError
from smoothcache_video.open_sora import AutoencoderKLOpenSora
from torch import Tensor

NORM = ("weight", "bias")
LEVELS = (128, 256, 256, 512)


def res_block(name: str, first: int, second: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a residual block."""
    norms = {f"{name}.norm1.{each}": (first,) for each in NORM}
    norms |= {f"{name}.norm2.{each}": (second,) for each in NORM}
    convs = {f"{name}.conv1.conv.weight": (second, first, 3, 3, 3)}
    convs |= {f"{name}.conv2.conv.weight": (second, second, 3, 3, 3)}
    if first != second:
        convs |= {f"{name}.conv3.conv.weight": (second, first, 1, 1, 1)}
    return norms | convs


def conv(name: str, first: int, second: int, side: int, *, bias: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {f"{name}.conv.weight": (second, first, side, side, side)}
    return found | ({f"{name}.conv.bias": (second,)} if bias else {})


def published() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the temporal part of the checkpoint, and of its two numbers."""
    encoder, decoder = "temporal_vae.encoder", "temporal_vae.decoder"
    known: dict[str, tuple[int, ...]] = {"scale": (1, 4, 1, 1, 1), "shift": (1, 4, 1, 1, 1)}
    known |= conv(f"{encoder}.conv_in", 4, 128, 3, bias=False)
    known |= conv(f"{encoder}.conv2", 512, 8, 1) | conv("temporal_vae.quant_conv", 8, 8, 1)
    known |= conv("temporal_vae.post_quant_conv", 4, 4, 1)
    known |= conv(f"{decoder}.conv1", 4, 512, 3) | conv(f"{decoder}.conv_out", 128, 4, 3)
    for half in (encoder, decoder):
        known |= {f"{half}.norm1.{each}": (512 if half is encoder else 128,) for each in NORM}
        for number in range(4):
            known |= res_block(f"{half}.res_blocks.{number}", 512, 512)
    for level, channels in enumerate(LEVELS):
        below = LEVELS[max(level - 1, 0)]
        above = LEVELS[min(level + 1, 3)]
        for half, first in ((encoder, below), (decoder, above)):
            for number in range(4):
                name = f"{half}.block_res_blocks.{level}.{number}"
                known |= res_block(name, channels if number else first, channels)
    for number in (1, 2):
        known |= conv(f"{encoder}.conv_blocks.{number}", 256, 256, 3)
        known |= conv(f"{decoder}.conv_blocks.{number}", LEVELS[number + 1], 512 * number, 3)
    return known


def test_parameters_are_those_of_the_published_checkpoint():
    sizes: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    with torch.device("meta"):
        full = AutoencoderKLOpenSora()
        of_frames = AutoencoderKL(**sizes)
    found = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    spatial = {
        f"spatial_vae.module.{name}": tuple(tensor.shape)
        for name, tensor in of_frames.state_dict().items()
    }
    assert found == published() | spatial
    assert len(found) == 517


@torch.no_grad()
def latents_of(vae: AutoencoderKLOpenSora, videos: Tensor) -> Tensor:
    return vae.encode(videos, torch.Generator().manual_seed(0)).latent_dist.mode()


@pytest.mark.parametrize(
    ("frames", "latent"),
    [(1, 1), (4, 1), (5, 2), (16, 4), (17, 5), (18, 6), (34, 10), (40, 12), (51, 15)],
)
def test_groups_of_17_frames_are_5_of_the_latent(frames: int, latent: int):
    vae = video_autoencoder()
    assert vae.latent_frames(frames) == latent
    assert vae.latent_frames(vae.frames(latent)) == latent
    assert vae.frames(latent) >= frames
    decoded = vae.decode(torch.randn(1, 4, latent, 2, 2), num_frames=frames).sample
    assert decoded.shape == (1, 3, frames, 4, 4)


def test_without_groups_a_video_is_one():
    vae = video_autoencoder(micro_frame_size=None)
    assert [vae.latent_frames(frames) for frames in (1, 17, 51)] == [1, 5, 13]
    assert vae.frames(13) == 52
    assert latents_of(vae, torch.zeros(1, 3, 21, 4, 4)).shape == (1, 4, 6, 2, 2)


def test_a_frame_sees_none_after_it_and_a_group_none_of_another():
    vae = video_autoencoder()
    latents = torch.randn(1, 4, 10, 2, 2)
    changed = latents.clone()
    changed[:, :, 7] += 1.0
    with torch.no_grad():
        one, other = (vae.decode(each).sample for each in (latents, changed))
    same = [torch.equal(one[:, :, n], other[:, :, n]) for n in range(34)]
    first_of = 17 + 2 * 4 - 3  # three frames come before a group of 17
    assert all(same[:17])
    assert not any(same[first_of:])
    with torch.no_grad():
        alone = vae.decode(latents[:, :, 5:], num_frames=17).sample
    assert torch.allclose(alone, one[:, :, 17:], atol=1e-6)


def test_latents_are_normed_by_channel():
    vae = video_autoencoder()
    plain = video_autoencoder(latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4)
    plain.load_state_dict(vae.state_dict() | {"scale": plain.scale, "shift": plain.shift})
    videos = torch.rand(1, 3, 5, 4, 4) * 2 - 1
    raw, normed = latents_of(plain, videos), latents_of(vae, videos)
    assert torch.allclose(normed, (raw - vae.shift) / vae.scale, atol=1e-5)
    spreads = [each.encode(videos, torch.Generator().manual_seed(0)) for each in (plain, vae)]
    ones, others = (each.latent_dist.std for each in spreads)
    assert torch.allclose(others, ones / vae.scale, rtol=1e-4)


def test_frames_of_a_batch_come_back_where_they_were():
    vae = video_autoencoder()
    latents = torch.randn(2, 4, 6, 2, 2)
    with torch.no_grad():
        both = vae.decode(latents, num_frames=18).sample
        second = vae.decode(latents[1:], num_frames=18, return_dict=False)[0]
    assert torch.allclose(both[1:], second, atol=1e-5)


def test_what_is_drawn_of_frames_comes_from_the_generator():
    vae = video_autoencoder()
    videos = torch.rand(1, 3, 5, 4, 4)
    with torch.no_grad():
        first, again, other = (
            vae.encode(videos, torch.Generator().manual_seed(seed)).latent_dist.mode()
            for seed in (1, 1, 2)
        )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_latents_of_another_number_of_frames_are_refused():
    with pytest.raises(
        PipelineError, match="a video of 17 frames has 5 frames of the latent, got 6"
    ):
        video_autoencoder().decode(torch.zeros(1, 4, 6, 2, 2), num_frames=17)


def test_what_moves_models_hears_of_both_ways():
    class Mover(ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            moved.append(type(module).__name__)
            return args, kwargs

    vae, moved = video_autoencoder(), []
    add_hook_to_module(vae, Mover())
    latents_of(vae, torch.zeros(1, 3, 1, 4, 4))
    vae.decode(torch.zeros(1, 4, 1, 2, 2))
    assert len(moved) == 2


def test_saved_and_loaded_it_decodes_the_same(tmp_path: Path):
    vae, latents = video_autoencoder(), torch.randn(1, 4, 2, 2, 2)
    vae.save_pretrained(tmp_path)
    loaded: Any = AutoencoderKLOpenSora.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.decode(latents).sample, vae.decode(latents).sample)
