"""Adapters inside real pipelines of diffusers, with tiny random models and no text encoders."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
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
from kit.hook_reference import assert_restored, counted, hooked, snapshot
from kit.image_models import CASES
from smoothcache_core import PatternAdapter, Schedule, cached, calibrate
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Fill
from smoothcache_core.sources import smooth
from smoothcache_image import DIT, FLUX, LUMINA2, SD3, adapter_for, sampler_of
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
        pytest.raises(ScheduleError, match="set to 5 evaluations, but the schedule is for 4"),
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
    taken = sampler_of(pipe, lambda seed: sampler.sample(pipe, seed), branches=sampler.branches)
    calibration = calibrate(taken, seeds=[5], max_lag=3, progress=False)
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


# ---------------------------------------------------------------------------- whole evaluations


class WholeReference:
    """Computes everything, then writes what the cache should give over the denoiser's output."""

    def __init__(self, sampler: Sampler, original: Callable[..., Any], *, guidance: bool) -> None:
        self.sampler, self.original, self.guidance = sampler, original, guidance
        self.calls = 0
        self.kept: dict[int, Tensor] = {}
        self.conditional = torch.zeros(0)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.original(*args, **kwargs)
        evaluation, call = divmod(self.calls, self.sampler.calls)
        self.calls += 1
        if self.guidance:
            self.guide(output[0], ROW[evaluation], call)
        else:
            latent = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self.fill(output[0], ROW[evaluation], call, latent)
        return output

    def guide(self, output: Tensor, computed: int, call: int) -> None:
        if self.sampler.calls == 2:
            one, other = self.conditional, output
            self.conditional = output.clone()
            if call == 0:
                return
        else:
            halves = output.chunk(2)
            one, other = halves if self.sampler.adapter.guidance == "cond-first" else halves[::-1]
        if computed:
            self.kept[0] = one - other
        other.copy_(one - self.kept[0])

    def fill(self, output: Tensor, computed: int, call: int, latent: Tensor) -> None:
        if computed:
            self.kept[call] = output.clone()
        else:
            output.copy_(0.9 * self.kept[call])
            output[:, : latent.shape[1]] += 0.1 * latent


@contextmanager
def by_hand(sampler: Sampler, model: nn.Module, *, guidance: bool) -> Generator[None]:
    vars(model)["forward"] = WholeReference(sampler, model.forward, guidance=guidance)
    try:
        yield
    finally:
        del vars(model)["forward"]


def rows_computed(pipe: Any, sampler: Sampler) -> list[int]:
    """Return a list that gets the rows of every call that reaches the blocks."""
    sites = sampler.adapter.sites(pipe.transformer)
    site = next(site for site in sites if site.kind in ("ff", "feed_forward"))
    rows: list[int] = []
    module = pipe.transformer.get_submodule(site.path)
    module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    return rows


@every_sampler
def test_skipped_unconditional_passes_equal_the_reference(sampler: Sampler):
    """Up to rounding, for a half batch is multiplied in another order than a whole one."""
    pipe = sampler.pipeline()
    plain = sampler.sample(pipe)
    with by_hand(sampler, pipe.transformer, guidance=True):
        expected = sampler.sample(pipe)
    rows = rows_computed(pipe, sampler)
    with cached(
        pipe.transformer,
        sampler.adapter,
        Schedule(evaluations=4, rows={"guidance": ROW}),
        branches=sampler.branches,
        scheduler=pipe.scheduler,
    ) as stats:
        sample = sampler.sample(pipe)
    torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sample, plain, rtol=1e-3, atol=1e-3)
    assert rows == ([2, 1, 1, 2] if sampler.calls == 1 else [1] * 6)
    assert (stats.computed, stats.reused) == ({"guidance": 2}, {"guidance": 2})


@every_sampler
def test_skipped_evaluations_equal_the_reference(sampler: Sampler):
    pipe = sampler.pipeline()
    plain = sampler.sample(pipe)
    with by_hand(sampler, pipe.transformer, guidance=False):
        expected = sampler.sample(pipe)
    rows = rows_computed(pipe, sampler)
    fill = Fill(terms={1: (0.9,), 2: (0.9,)}, inputs={1: 0.1, 2: 0.1})
    with cached(
        pipe.transformer,
        sampler.adapter,
        Schedule(evaluations=4, rows={"denoiser": ROW}, fills={"denoiser": fill}),
        branches=sampler.branches,
        scheduler=pipe.scheduler,
    ) as stats:
        sample = sampler.sample(pipe)
    torch.testing.assert_close(sample, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(sample, plain, rtol=1e-3, atol=1e-3)
    assert len(rows) == 2 * sampler.calls
    assert stats.computed == stats.reused == {"denoiser": 2 * sampler.calls}
