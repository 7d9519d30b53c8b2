"""Calls of pipelines that differ from plain text to image: planned, or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux_control import FluxControlPipeline
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_flux_img2img import FluxImg2ImgPipeline
from diffusers.pipelines.flux.pipeline_flux_inpaint import FluxInpaintPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline
from diffusers.pipelines.lumina2.pipeline_lumina2 import Lumina2Pipeline
from diffusers.pipelines.pag.pipeline_pag_sd_3 import StableDiffusion3PAGPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img import (
    StableDiffusion3Img2ImgPipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from kit.image_models import CASES
from smoothcache_core import Calibration, Schedule, calibrate, plan
from smoothcache_core.adapters import LatentPart
from smoothcache_core.errors import SamplerError, ScheduleError
from smoothcache_core.sources import interval
from smoothcache_image import LUMINA2, SD3, cached_pipeline, sampler_of
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:only 2 samples were calibrated:smoothcache_core.SmoothCacheWarning"
)
zoo = pytest.mark.zoo
SIZE = 64


def numbers(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texts(*, negative: bool) -> dict[str, Tensor]:
    found = {"prompt_embeds": numbers(1, 5, 12), "pooled_prompt_embeds": numbers(1, 10)}
    if negative:
        found["negative_prompt_embeds"] = numbers(1, 5, 12, seed=6)
        found["negative_pooled_prompt_embeds"] = numbers(1, 10, seed=6)
    return found


def picture() -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9))


def mask() -> Tensor:
    known = torch.zeros(1, 1, SIZE, SIZE)
    known[..., SIZE // 2 :] = 1.0
    return known


def vae(channels: int) -> AutoencoderKL:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "block_out_channels": (8,) * 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "sample_size": SIZE,
        "latent_channels": channels,
    }
    return AutoencoderKL(**settings, shift_factor=0.1, scaling_factor=0.8).eval()


def model_of(adapter: object) -> nn.Module:
    return next(case for case in CASES if case.adapter is adapter).model()


def flux_of(channels: int) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=channels,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 4, 8),
    ).eval()


@dataclass(frozen=True, kw_only=True)
class Call:
    """One way of calling a pipeline.

    Attributes:
        pipeline: Class of the pipeline.
        model: Makes its denoiser.
        arguments: Makes what it is called with, beside texts, size and steps.
        parts: Makes its further parts.
        steps: Steps that it is asked for.
        evaluations: Evaluations that these are.
        passes: Conditioning passes of an evaluation.
        part: What of the latent argument is denoised; None for all of it.
        negative: Whether it takes texts of a negative prompt.
        guided: Whether two passes are those of classifier-free guidance.
    """

    pipeline: Any
    model: Callable[[], nn.Module]
    arguments: Callable[[], dict[str, Any]] = dict
    parts: Callable[[], dict[str, Any]] = field(default=dict)
    steps: int = 8
    evaluations: int = 8
    passes: int = 2
    part: LatentPart | None = None
    negative: bool = True
    guided: bool = True

    def made(self) -> Any:
        names = ["vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]
        if self.pipeline.__name__.startswith("StableDiffusion3"):
            names += ["text_encoder_3", "tokenizer_3"]
        parts = {**dict.fromkeys(names), **self.parts()}
        scheduler = FlowMatchEulerDiscreteScheduler()
        pipe = self.pipeline(transformer=self.model(), scheduler=scheduler, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sample(self, pipe: Any, seed: int) -> Tensor:
        return pipe(
            **{"height": SIZE, "width": SIZE, "num_inference_steps": self.steps},
            **texts(negative=self.negative),
            **self.arguments(),
            output_type="latent",
            generator=torch.Generator().manual_seed(seed),
        ).images

    def calibrated(self, pipe: Any) -> Calibration:
        sampler = sampler_of(pipe, lambda seed: self.sample(pipe, seed))
        return calibrate(sampler, seeds=[0, 1], progress=False)

    def error(self, pipe: Any, schedule: Schedule) -> tuple[float, Any]:
        plain = self.sample(pipe, 7)
        with cached_pipeline(pipe, schedule) as stats:
            found = self.sample(pipe, 7)
        return float((found - plain).norm() / plain.norm()), stats


def sd3(pipeline: Any = StableDiffusion3Pipeline, **settings: Any) -> Call:
    return Call(pipeline=pipeline, model=lambda: model_of(SD3), **settings)


def flux(pipeline: Any = FluxPipeline, channels: int = 4, **settings: Any) -> Call:
    known = {"passes": 1, "negative": False, **settings}
    return Call(pipeline=pipeline, model=lambda: flux_of(channels), **known)


def with_vae(channels: int, **others: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"vae": vae(channels), **others}


PAG = {"pag_applied_layers": ["1"]}
PLANNED = {
    "image to image": sd3(
        StableDiffusion3Img2ImgPipeline,
        arguments=lambda: {"image": picture(), "strength": 0.6},
        parts=with_vae(4),
        steps=14,
    ),
    "perturbed attention, unguided": sd3(
        StableDiffusion3PAGPipeline,
        arguments=lambda: {"pag_scale": 1.0, "guidance_scale": 1.0},
        parts=lambda: PAG,
        guided=False,
    ),
    "Kontext": flux(
        FluxKontextPipeline,
        arguments=lambda: {"image": picture(), "max_area": SIZE**2, "_auto_resize": False},
        parts=with_vae(1),
        part=LatentPart(dim=1, start=0, stop=16),
    ),
}
MORE = {
    "custom sigmas": sd3(arguments=lambda: {"sigmas": [1.0, 0.9, 0.8, 0.7, 0.5, 0.4, 0.25, 0.1]}),
    "without guidance": sd3(arguments=lambda: {"guidance_scale": 1.0}, passes=1),
    "perturbed attention, guided": sd3(
        StableDiffusion3PAGPipeline,
        arguments=lambda: {"pag_scale": 1.0},
        parts=lambda: PAG,
        passes=3,
    ),
    "true guidance": flux(arguments=lambda: {"true_cfg_scale": 3.0}, passes=2, negative=True),
    "Flux image to image": flux(
        FluxImg2ImgPipeline,
        arguments=lambda: {"image": picture(), "strength": 0.6},
        parts=with_vae(1),
        steps=14,
    ),
    "inpainting": flux(
        FluxInpaintPipeline,
        arguments=lambda: {"image": picture(), "mask_image": mask(), "strength": 0.99},
        parts=with_vae(1),
    ),
    "Fill": flux(
        FluxFillPipeline,
        channels=4 + 4 + 256,
        arguments=lambda: {"image": picture(), "mask_image": mask()},
        parts=with_vae(1),
        part=LatentPart(dim=2, start=0, stop=4),
    ),
    "Control": flux(
        FluxControlPipeline,
        channels=8,
        arguments=lambda: {"control_image": picture()},
        parts=with_vae(1),
        part=LatentPart(dim=2, start=0, stop=4),
    ),
}
EVERY = [pytest.param(call, id=name) for name, call in PLANNED.items()]
EVERY += [pytest.param(call, id=name, marks=zoo) for name, call in MORE.items()]


@pytest.mark.parametrize("call", EVERY)
def test_a_call_is_planned_right(call: Call):
    pipe = call.made()
    calibration = call.calibrated(pipe)
    assert calibration.remark == ""
    assert calibration.dynamics is not None
    assert calibration.dynamics.response.weights.shape[1] == call.passes
    assert calibration.fingerprint.latent_part == call.part
    for target, compute in (("denoiser", 0.6), ("site", 0.8)):
        schedule = plan(calibration, compute=compute, target=target)
        error, stats = call.error(pipe, schedule)
        assert schedule.prediction is not None
        assert schedule.prediction.high is not None
        assert error < schedule.prediction.high, target
        assert stats.recomputed == 0
        assert stats.reuse_fraction > 0.15
    if call.passes == 2 and not call.guided:
        with pytest.raises(ScheduleError, match="the unconditional pass cannot be skipped"):
            plan(calibration, compute=0.6, target="guidance")


@pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")
def test_a_schedule_of_guidance_halves_no_batch_without_it():
    guided, perturbed = sd3(), PLANNED["perturbed attention, unguided"]
    schedule = plan(guided.calibrated(guided.made()), compute=0.6, target="guidance")
    error, stats = perturbed.error(perturbed.made(), schedule)
    assert error < 0.01
    assert stats.recomputed > 0


# ---------------------------------------------------------------------------- refused by name


SKIPPING = sd3(
    arguments=lambda: {
        "skip_guidance_layers": [1],
        "skip_layer_guidance_start": 0.2,
        "skip_layer_guidance_stop": 0.6,
    }
)


def test_skip_layer_guidance_is_refused_by_name():
    pipe = SKIPPING.made()
    with pytest.raises(SamplerError, match="skip-layer guidance makes further calls"):
        SKIPPING.calibrated(pipe)
    schedule = interval(2, evaluations=8, kinds=["attn", "ff"])
    with pytest.raises(SamplerError, match="no `skip_guidance_layers`"):
        SKIPPING.error(pipe, schedule)


def without_guidance_from(step: int) -> Callable[..., dict[str, Tensor]]:
    def switch(pipe: Any, done: int, timestep: object, given: dict[str, Tensor]) -> dict[str, Any]:
        del timestep
        if done + 1 != step:
            return given
        pipe._guidance_scale = 0.0
        return {name: value[len(value) // 2 :] for name, value in given.items()}

    return switch


SWITCHED = sd3(
    arguments=lambda: {
        "callback_on_step_end": without_guidance_from(4),
        "callback_on_step_end_tensor_inputs": ["prompt_embeds", "pooled_prompt_embeds"],
    }
)


def test_guidance_that_is_switched_off_is_refused_by_name():
    pipe = SWITCHED.made()
    calibration = SWITCHED.calibrated(pipe)
    for target in ("auto", "denoiser", "site", "smooth"):
        with pytest.raises(ScheduleError, match="guidance must not be switched in a run"):
            plan(calibration, compute=0.7, target=target)
    error, stats = SWITCHED.error(pipe, interval(2, evaluations=8, kinds=["attn", "ff"]))
    assert error < 0.02
    assert stats.runs == 1


def test_guidance_that_ends_is_refused_by_name():
    names = ("vae", "text_encoder", "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipe: Any = Lumina2Pipeline(
        transformer=model_of(LUMINA2),  # pyright: ignore[reportArgumentType]
        scheduler=scheduler,
        **dict.fromkeys(names),  # pyright: ignore[reportArgumentType]
    )
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {
        "prompt_embeds": numbers(1, 5, 12),
        "negative_prompt_embeds": numbers(1, 5, 12, seed=6),
        "prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
        "negative_prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
    }

    def sample(seed: int) -> Tensor:
        return pipe(
            **given,
            **{"height": SIZE, "width": SIZE, "num_inference_steps": 8, "cfg_trunc_ratio": 0.5},
            output_type="latent",
            generator=torch.Generator().manual_seed(seed),
        ).images

    sampler = sampler_of(pipe, sample, branches=("cond", "uncond"))
    calibration = calibrate(sampler, seeds=[0], progress=False)
    with pytest.raises(ScheduleError, match=r"12 calls in 8 evaluations .* must not be switched"):
        plan(calibration, compute=0.7)
