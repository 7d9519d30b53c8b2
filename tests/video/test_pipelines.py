"""Pipelines of video are calibrated and cached: Open-Sora's, and Wan 2.2 with two transformers."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from kit.video_models import WAN_SIZE, open_sora
from smoothcache_core import Sampler, calibrate, plan
from smoothcache_video import cached_pipeline, sampler_of
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler
from torch import Tensor, nn

STEPS = 8
pytestmark = pytest.mark.filterwarnings("ignore:a run of 8 evaluations", "ignore:only 4 samples")


def lively(model: nn.Module) -> nn.Module:
    """Return the model with weights that do something."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.2)
    return model.eval()


def open_sora_pipeline() -> OpenSoraPipeline:
    torch.manual_seed(0)
    denoiser: Any = lively(open_sora())
    return OpenSoraPipeline(None, None, None, denoiser, RectifiedFlowScheduler())


def wan_pipeline() -> WanPipeline:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.manual_seed(0)
    both = [lively(WanTransformer3DModel(**WAN_SIZE)) for _ in range(2)]
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None}
    parts |= {"transformer": both[0], "transformer_2": both[1]}
    return WanPipeline(
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        boundary_ratio=0.875,
        **parts,
    )


def words(channels: int) -> Tensor:
    return torch.randn(1, 5, channels, generator=torch.Generator().manual_seed(9))


def run_open_sora(pipe: Any, seed: int) -> Tensor:
    return pipe(
        prompt_embeds=words(12),
        height=16,
        width=16,
        num_frames=2,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).frames


def run_wan(pipe: Any, seed: int) -> Tensor:
    return pipe(
        prompt_embeds=words(12),
        negative_prompt_embeds=-words(12),
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).frames


@pytest.mark.parametrize("adapter", ["auto", "whole"])
@pytest.mark.parametrize(
    ("make", "run"), [(open_sora_pipeline, run_open_sora), (wan_pipeline, run_wan)]
)
def test_a_plan_at_a_half_stays_near_the_plain_run(make: Any, run: Any, adapter: str):
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    sampler: Sampler = sampler_of(pipe, lambda seed: run(pipe, seed), adapter=adapter)
    schedule = plan(calibrate(sampler, seeds=range(4), progress=False), compute=0.6)
    with cached_pipeline(pipe, schedule, adapter=adapter) as stats:
        made, again = run(pipe, 7), run(pipe, 7)
    plain = run(pipe, 7)
    assert torch.equal(made, again)
    assert stats.runs == 2
    assert stats.recomputed == 0
    assert stats.reused
    assert 0 < float((made - plain).norm() / plain.norm()) < 0.3
