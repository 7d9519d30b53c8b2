"""A tiny Wan 2.2: two denoisers, of which the second takes over at a boundary."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.pipelines import PipelineClass, diffusers_sampler
from smoothcache_core.pipelines.diffusers_shaped import denoiser_part
from torch import Tensor

WAN = PatternAdapter(
    name="wan", patterns=tuple(SitePattern(f"blocks.*.{k}", k) for k in ("attn1", "attn2", "ffn"))
)
STEPS = 8


def transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()


def autoencoder() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    ).eval()


def wan_pipeline(boundary_ratio: float | None = 0.875, *, second: bool = True) -> WanPipeline:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, "vae": autoencoder()}
    pipe = WanPipeline(
        **parts,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer(),
        transformer_2=transformer() if second else None,
        boundary_ratio=boundary_ratio,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, seed: int, **changes: Any) -> Tensor:
    words = torch.randn(2, 1, 6, 16, generator=torch.Generator().manual_seed(1))
    arguments = {
        "prompt_embeds": words[0],
        "negative_prompt_embeds": words[1],
        "height": 16,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": STEPS,
        "output_type": "latent",
    }
    generator = torch.Generator().manual_seed(seed)
    return pipe(generator=generator, **(arguments | changes)).frames


def wan_sampler(pipe: Any, **changes: Any) -> Sampler:
    denoiser = denoiser_part(pipe, "transformer")
    assert denoiser is not None

    def run(seed: int) -> Tensor:
        return sample(pipe, seed, **changes)

    return diffusers_sampler(pipe, denoiser, WAN, run, known=PipelineClass(name="WanPipeline"))
