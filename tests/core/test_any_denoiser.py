"""Denoisers of diffusers of which nothing is known: whole evaluations of a UNet and of a video."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from smoothcache_core import Sampler, Schedule, cached, calibrate, evaluate, plan
from smoothcache_core.adapters import whole_evaluations
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 7


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        sample_size=8,
    ).requires_grad_(False)


def wan() -> nn.Module:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    ).requires_grad_(False)


CASES: dict[str, tuple[Callable[[], nn.Module], Any, tuple[int, ...], str]] = {
    "unet": (unet, partial(DDIMScheduler, clip_sample=False), (4, 8, 8), "sample"),
    "video": (wan, FlowMatchEulerDiscreteScheduler, (4, 3, 8, 8), "hidden_states"),
}


def sampler_of(name: str) -> Sampler:
    """Return a sampler as pipelines make it: both passes of guidance in one batch."""
    make, solver, shape, _ = CASES[name]
    model, scheduler = make(), solver()
    prompt = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).repeat_interleave(
        2, 0
    )

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        scheduler.set_timesteps(STEPS)
        latent = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
        for timestep in scheduler.timesteps:
            both = model(
                torch.cat((latent, latent)), timestep=timestep.expand(4),
                encoder_hidden_states=prompt, return_dict=False,
            )[0]  # fmt: skip
            unconditional, conditional = both.chunk(2)
            guided = unconditional + 3.0 * (conditional - unconditional)
            latent = scheduler.step(guided, timestep, latent, return_dict=False)[0]
        return latent

    adapter = whole_evaluations(model)
    return Sampler(model=model, adapter=adapter, run=run, scheduler=scheduler, samples=2)


def rows_alone(schedule: Schedule) -> dict[str, tuple[int, ...]]:
    """Return the rows, that of guidance without the evaluations that are skipped as a whole."""
    rows = dict(schedule.rows)
    if "guidance" in rows:
        whole = zip(rows["denoiser"], rows["guidance"], strict=True)
        rows["guidance"] = tuple(int(both or not one) for one, both in whole)
    return rows


@pytest.mark.parametrize("name", CASES)
def test_whole_evaluations_of_any_denoiser(name: str):
    sampler = sampler_of(name)
    assert sampler.adapter.latent == CASES[name][3]
    calibration = calibrate(sampler, seeds=range(2), sensitivity=1, progress=False)
    assert calibration.sites == ()
    assert calibration.cost.counted
    assert calibration.fingerprint.latent_shape == CASES[name][2]
    half = plan(calibration, compute=0.5)
    assert half.whole
    assert half.compute_fraction() == 0.5
    plain = sampler.final_latent(10)
    with cached(sampler.model, sampler.adapter, half, scheduler=sampler.scheduler) as stats:
        sampler.run(10)
    assert stats.reused == {kind: row.count(0) for kind, row in rows_alone(half).items()}
    assert stats.recomputed == 0
    assert torch.equal(sampler.final_latent(10), plain)
    report = evaluate(sampler, {"half": half}, seeds=[10], warmup=0, progress=False)
    assert 0.0 < report.row("half").rel_l2 < 0.1
