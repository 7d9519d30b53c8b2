"""Adapters inside real pipelines of diffusers, with tiny random models and no text encoders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.lumina2.pipeline_lumina2 import Lumina2Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from image_models import CASES
from image_reference import assert_restored, counted, hooked, snapshot
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    ScheduleError,
    cached,
    calibrate,
    smooth,
)
from smoothcache_image import DIT, FLUX, LUMINA2, SD3, adapter_for
from torch import Tensor, nn

ROW = (1, 0, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A pipeline and how to sample from it.

    Attributes:
        adapter: Adapter of its denoiser.
        build: Makes the pipeline around a denoiser.
        arguments: Makes the arguments of its call.
        calls: Calls of the denoiser in one evaluation.
        branches: Names of these calls, where the pipeline does not announce them.
    """

    adapter: PatternAdapter
    build: Callable[[nn.Module], Any]
    arguments: Callable[[], dict[str, Any]]
    calls: int = 1
    branches: tuple[str, ...] = ()

    def pipeline(self) -> Any:
        model = next(case for case in CASES if case.adapter is self.adapter).model()
        pipe = self.build(model)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sample(self, pipe: Any, seed: int = 0, *, num_inference_steps: int = len(ROW)) -> Tensor:
        torch.manual_seed(0)
        result = pipe(
            **self.arguments(),
            generator=torch.Generator().manual_seed(seed),
            num_inference_steps=num_inference_steps,
        )
        return torch.as_tensor(result.images)


def dit_pipeline(model: nn.Module) -> Any:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    return DiTPipeline(model, vae.eval(), DDIMScheduler())  # pyright: ignore[reportArgumentType] any module will do


def sd3_pipeline(model: nn.Module) -> Any:
    parts = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    parts += ("text_encoder_3", "tokenizer_3")
    scheduler = FlowMatchEulerDiscreteScheduler()
    return StableDiffusion3Pipeline(model, scheduler, **dict.fromkeys(parts))  # pyright: ignore[reportArgumentType] any module will do


def flux_pipeline(model: nn.Module) -> Any:
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = FlowMatchEulerDiscreteScheduler()
    return FluxPipeline(transformer=model, scheduler=scheduler, **parts)  # pyright: ignore[reportArgumentType] any module will do


def lumina2_pipeline(model: nn.Module) -> Any:
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    scheduler = FlowMatchEulerDiscreteScheduler()
    return Lumina2Pipeline(transformer=model, scheduler=scheduler, **parts)  # pyright: ignore[reportArgumentType] any module will do


def text() -> dict[str, Any]:
    """Return two prompts, to follow and to avoid, as embeddings."""
    prompt, negative = torch.randn(2, 1, 5, 12)
    return {
        "prompt_embeds": prompt,
        "negative_prompt_embeds": negative,
        "height": 64,
        "width": 64,
        "output_type": "latent",
    }


def pooled() -> dict[str, Any]:
    prompt, negative = torch.randn(2, 1, 10)
    return {"pooled_prompt_embeds": prompt, "negative_pooled_prompt_embeds": negative}


def masks() -> dict[str, Any]:
    mask = torch.ones(1, 5, dtype=torch.bool)
    return {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}


SAMPLERS = (
    Sampler(
        adapter=DIT,
        build=dit_pipeline,
        arguments=lambda: {"class_labels": [3], "output_type": "np"},
    ),
    Sampler(
        adapter=SD3,
        build=sd3_pipeline,
        arguments=lambda: {**text(), **pooled()},
    ),
    Sampler(
        adapter=FLUX,
        build=flux_pipeline,
        arguments=lambda: {**text(), **pooled(), "true_cfg_scale": 3.0},
        calls=2,
    ),
    Sampler(
        adapter=LUMINA2,
        build=lumina2_pipeline,
        arguments=lambda: {**text(), **masks()},
        calls=2,
        branches=("cond", "uncond"),
    ),
)
FLUX_SAMPLER = SAMPLERS[2]

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.adapter.name)
two_calls = pytest.mark.parametrize(
    "sampler", [s for s in SAMPLERS if s.calls == 2], ids=lambda s: s.adapter.name
)


def schedule_for(pipe: Any) -> Schedule:
    sites = adapter_for(pipe.transformer).sites(pipe.transformer)
    return Schedule(evaluations=len(ROW), rows={site.kind: ROW for site in sites})


@every_sampler
def test_cached_sample_equals_the_reference(sampler: Sampler):
    pipe = sampler.pipeline()
    model, sites = pipe.transformer, sampler.adapter.sites(pipe.transformer)
    plain = sampler.sample(pipe)
    with hooked(model, sites, ROW, branches=sampler.calls):
        expected = sampler.sample(pipe)
    with cached(
        model,
        adapter_for(model),
        schedule_for(pipe),
        branches=sampler.branches,
        scheduler=pipe.scheduler,
    ):
        sample = sampler.sample(pipe)
    assert sample.isfinite().all()
    assert torch.equal(sample, expected)
    assert not torch.equal(sample, plain)


@two_calls
def test_mixing_the_two_calls_would_be_seen(sampler: Sampler):
    pipe = sampler.pipeline()
    model, sites = pipe.transformer, sampler.adapter.sites(pipe.transformer)
    with hooked(model, sites, ROW, branches=2):
        apart = sampler.sample(pipe)
    with hooked(model, sites, (1, 0, 0, 0, 0, 0, 1, 0)):
        mixed = sampler.sample(pipe)
    assert not torch.allclose(mixed, apart, rtol=1e-2)


@two_calls
def test_each_call_is_given_its_own_outputs(sampler: Sampler):
    pipe = sampler.pipeline()
    sites = sampler.adapter.sites(pipe.transformer)
    site = next(site for site in sites if site.kind == "attn")
    outputs: list[Tensor] = []

    def note(*call: Any) -> None:
        outputs.append(call[-1][0] if isinstance(call[-1], tuple) else call[-1])

    with cached(
        pipe.transformer, sampler.adapter, schedule_for(pipe), branches=sampler.branches
    ) as stats:
        pipe.transformer.get_submodule(site.path).register_forward_hook(note)
        sampler.sample(pipe)
    cond, uncond = outputs[0::2], outputs[1::2]
    assert stats.evaluations == len(outputs) == 2 * len(ROW)
    for given in (cond, uncond):
        assert torch.equal(given[1], given[0])
        assert torch.equal(given[2], given[0])
        assert not torch.equal(given[3], given[0])
    assert not any(torch.equal(one, other) for one, other in zip(cond, uncond, strict=True))


@every_sampler
def test_runs_are_repeatable_and_apart(sampler: Sampler):
    pipe = sampler.pipeline()
    model, schedule = pipe.transformer, schedule_for(pipe)
    with cached(model, sampler.adapter, schedule, branches=sampler.branches):
        alone = sampler.sample(pipe, seed=1)
    with cached(
        model, sampler.adapter, schedule, branches=sampler.branches, scheduler=pipe.scheduler
    ) as stats:
        first, other, again = (sampler.sample(pipe, seed) for seed in (0, 1, 0))
    assert stats.runs == 3
    assert torch.equal(again, first)
    assert torch.equal(other, alone)
    assert not torch.equal(other, first)


@every_sampler
def test_calls_are_those_of_the_plan(sampler: Sampler):
    pipe = sampler.pipeline()
    model, sites = pipe.transformer, sampler.adapter.sites(pipe.transformer)
    with counted(model, sites) as plain:
        sampler.sample(pipe)
    with (
        counted(model, sites) as calls,
        cached(
            model,
            sampler.adapter,
            schedule_for(pipe),
            branches=sampler.branches,
            scheduler=pipe.scheduler,
        ) as stats,
    ):
        sampler.sample(pipe)
    assert {key: 2 * times for key, times in calls.items()} == dict(plain)
    assert stats.evaluations == len(ROW) * sampler.calls
    assert stats.computed == stats.reused == {site.path: 2 * sampler.calls for site in sites}
    assert stats.recomputed == 0


@every_sampler
def test_another_number_of_steps_is_refused_before_computing(sampler: Sampler):
    pipe = sampler.pipeline()
    model, sites = pipe.transformer, sampler.adapter.sites(pipe.transformer)
    sampler.sample(pipe)  # diffusers leaves attributes of its own at the first call
    model_before, scheduler_before = snapshot(model), set(vars(pipe.scheduler))

    def sample_with_five_steps() -> None:
        with cached(
            model,
            sampler.adapter,
            schedule_for(pipe),
            branches=sampler.branches,
            scheduler=pipe.scheduler,
        ):
            sampler.sample(pipe, num_inference_steps=5)

    with (
        counted(model, sites) as calls,
        pytest.raises(ScheduleError, match="set to 5 evaluations, but the schedule has 4"),
    ):
        sample_with_five_steps()
    assert not calls
    assert_restored(model, model_before)
    assert set(vars(pipe.scheduler)) == scheduler_before


@every_sampler
def test_calibrated_schedule_runs_without_a_remark(sampler: Sampler):
    pipe = sampler.pipeline()
    model = pipe.transformer
    sampler.sample(pipe)  # diffusers leaves attributes of its own at the first call
    before = snapshot(model)
    calibration = calibrate(
        model,
        sampler.adapter,
        lambda seed: sampler.sample(pipe, seed),
        seeds=[5],
        branches=sampler.branches,
        scheduler=pipe.scheduler,
        progress=False,
    )
    assert calibration.evaluations == len(ROW)
    assert len(calibration.branches) == sampler.calls
    schedule = smooth(calibration, alpha=10.0)
    with cached(
        model, sampler.adapter, schedule, branches=sampler.branches, scheduler=pipe.scheduler
    ) as stats:
        sample = sampler.sample(pipe)
    assert sample.isfinite().all()
    assert stats.reuse_fraction == 0.5
    assert_restored(model, before)
