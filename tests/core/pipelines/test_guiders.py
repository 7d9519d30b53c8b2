"""Modular pipelines of diffusers, where guidance is a component and no pass is announced."""

from typing import Any

import pytest
import torch
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks
from diffusers.modular_pipelines.wan.modular_blocks_wan22 import Wan22Blocks
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from kit.hook_reference import assert_restored, snapshot
from kit.wan import STEPS, WAN, transformer
from smoothcache_core import Sampler, calibrate, plan
from smoothcache_core.metrics import relative_l2
from smoothcache_core.pipelines import PipelineClass, cached_sampler, diffusers_sampler
from smoothcache_core.pipelines.diffusers_shaped import denoiser_part
from smoothcache_core.pipelines.guiders import guiders_announcing
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")


def modular(*, two: bool = False) -> Any:
    """Return a tiny Wan of modular blocks, which begins with embeddings and ends with a latent."""
    torch.manual_seed(0)
    blocks = Wan22Blocks() if two else WanBlocks()
    blocks.sub_blocks.pop("text_encoder")
    blocks.sub_blocks.pop("decode")
    pipe = blocks.init_pipeline()
    parts = {"transformer": transformer(), "transformer_2": transformer()}
    given = parts if two else {"transformer": parts["transformer"]}
    pipe.update_components(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, seed: int) -> Tensor:
    words = torch.randn(2, 1, 6, 16, generator=torch.Generator().manual_seed(1))
    return pipe(
        prompt_embeds=words[0],
        negative_prompt_embeds=words[1],
        height=16,
        width=16,
        num_frames=9,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
        output="latents",
    )


def sampler_of(pipe: Any) -> Sampler:
    model = denoiser_part(pipe, "transformer")
    assert model is not None
    known = PipelineClass(name=type(pipe).__name__)
    return diffusers_sampler(pipe, model, WAN, lambda seed: sample(pipe, seed), known=known)


@pytest.mark.parametrize("two", [False, True])
def test_passes_of_a_guider_are_announced(two: bool):
    pipe = modular(two=two)
    sampler = sampler_of(pipe)
    known = calibrate(sampler, seeds=range(4), sensitivity=1, progress=False)
    assert (known.evaluations, known.branches) == (STEPS, ("cond", "uncond"))
    assert not known.remark
    assert known.fingerprint.strength == (4.0 if two else 5.0)
    assert known.fingerprint.handovers == ((3,) if two else ())
    schedule = plan(known, compute=0.6, target="guidance")
    plain = sample(pipe, 10)
    parts = [pipe.transformer, *([pipe.transformer_2] if two else [])]
    before = [(part, snapshot(part)) for part in parts]
    with cached_sampler(sampler, schedule) as stats:
        first, second = sample(pipe, 10), sample(pipe, 10)
    assert (stats.runs, stats.recomputed) == (2, 0)
    assert torch.equal(first, second)
    assert float(relative_l2(plain, first).mean()) < 0.1
    for part, known_before in before:
        assert_restored(part, known_before)
    assert not {"set_state", "prepare_models", "cleanup_models"} & set(vars(pipe.guider))


def test_guidance_that_is_off_is_one_pass():
    pipe = modular()
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=1.0))
    sampler = sampler_of(pipe)
    known = calibrate(sampler, seeds=range(2), sensitivity=0, progress=False)
    assert known.branches == ("cond",)
    assert known.fingerprint.strength == 1.0


class Failed(Exception):
    pass


def test_an_exception_in_a_pass_leaves_nothing_announced():
    pipe = modular()
    sampler = sampler_of(pipe)
    known = calibrate(sampler, seeds=range(4), sensitivity=1, progress=False)
    schedule = plan(known, compute=0.6, target="denoiser")
    with cached_sampler(sampler, schedule):
        expected = sample(pipe, 10)

    def fail(*_: object) -> None:
        raise Failed

    with cached_sampler(sampler, schedule):
        handle = pipe.transformer.blocks[1].register_forward_pre_hook(fail)
        with pytest.raises(Failed):
            sample(pipe, 10)
        handle.remove()
        assert torch.equal(sample(pipe, 10), expected)


class Guider:
    """A guider of somebody's own, with three passes."""

    _input_predictions = ("pred_cond", "pred_uncond", "pred_cond_skip")
    num_conditions = 3
    is_unconditional = False
    guidance_scale = 2.0

    def set_state(self, step: int, num_inference_steps: int, timestep: object) -> None:
        """Know the step."""

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Prepare a pass."""

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """End a pass."""


class Heard(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def cache_context(self, name: str, **more: Any) -> Any:
        self.heard.append((name, more))
        return torch.no_grad()


def test_passes_have_the_names_that_the_guider_gives_them():
    guider, model = Guider(), Heard()
    pipe = type("Pipe", (), {"components": {"guider": guider, "transformer": model}})()
    with guiders_announcing(pipe, model):
        for step in range(2):
            guider.set_state(step, 2, None)
            for _ in range(3):
                guider.prepare_models(model)
                guider.cleanup_models(model)
    assert [name for name, _ in model.heard] == ["cond", "uncond", "cond_skip"] * 2
    assert model.heard[3][1] == {"step_index": 1, "num_inference_steps": 2}
    assert not vars(guider)


def test_a_denoiser_without_a_context_has_one_while_it_is_listened_to():
    guider, model = Guider(), nn.Linear(1, 1)
    pipe = type("Pipe", (), {"components": {"guider": guider}})()
    with guiders_announcing(pipe, model):
        assert "cache_context" in vars(model)
        guider.set_state(0, 2, None)
        guider.prepare_models(model)
    assert "cache_context" not in vars(model)
    with guiders_announcing(type("Pipe", (), {"components": {}})(), model):
        assert "cache_context" not in vars(model)
