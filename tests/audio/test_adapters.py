"""The adapters of the audio package: the contract, and what is special about single ones."""

from typing import Any

import pytest
import smoothcache_audio
import torch
from kit.adapter_contract import ROW, AdapterContract, Case, GuidanceContract, kinds, same
from kit.audio_models import CASES, stable_audio_tools_model
from smoothcache_audio import (
    ADAPTERS,
    LONGCAT_AUDIO,
    STABLE_AUDIO_TOOLS,
    adapter_for,
)
from smoothcache_core import Schedule, attach, cached
from smoothcache_core.errors import AdapterError, ScheduleError
from torch import Tensor, nn

BATCHED = [case for case in CASES if case.adapter.guidance is not None]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=BATCHED, ids=lambda case: case.name)
def batched_case(request: pytest.FixtureRequest) -> Case:
    return request.param


class TestAdapters(AdapterContract):
    find = staticmethod(adapter_for)


class TestGuidance(GuidanceContract):
    pass


def test_every_adapter_is_tested():
    assert [case.adapter for case in CASES] == list(ADAPTERS)
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)


def test_every_adapter_is_public():
    public = [getattr(smoothcache_audio, name) for name in smoothcache_audio.__all__]
    assert all(any(adapter is value for value in public) for adapter in ADAPTERS)


# ---------------------------------------------------------------------------- optional sites


def test_conformer_is_a_kind_where_there_is_one():
    plain = stable_audio_tools_model().model.model
    assert kinds(STABLE_AUDIO_TOOLS.sites(plain)) == ["self_attn", "cross_attn", "ff"]
    more = stable_audio_tools_model(diffusion={"conformer": True}).model.model
    assert "conformer" in kinds(STABLE_AUDIO_TOOLS.sites(more))


def test_cross_attention_may_end_early_or_be_left_out():
    model = stable_audio_tools_model(diffusion={"final_cross_attn_ix": 0}).model.model
    found = [site.path for site in STABLE_AUDIO_TOOLS.sites(model) if site.kind == "cross_attn"]
    assert found == ["transformer.layers.0.cross_attn"]
    longcat = next(case for case in CASES if case.adapter is LONGCAT_AUDIO).model()
    for block in longcat.get_submodule("blocks").children():
        vars(block)["_modules"].pop("cross_attn")
    assert kinds(LONGCAT_AUDIO.sites(longcat)) == ["self_attn", "ffn"]


# ---------------------------------------------------------------------------- guidance inside


def call(model: nn.Module, timestep: float, **settings: Any) -> Tensor:
    """Call a transformer of stable-audio-tools for one sample, the same but for its timestep."""
    generator = torch.Generator().manual_seed(0)
    return model(
        torch.randn(1, 8, 16, generator=generator),
        torch.tensor([timestep]),
        cross_attn_cond=torch.randn(1, 5, 32, generator=generator),
        global_embed=torch.randn(1, 32, generator=generator),
        **settings,
    )


def rows_of(model: nn.Module) -> list[int]:
    """Return a list that gets the rows of every call that reaches the first feed-forward."""
    rows: list[int] = []
    site = model.get_submodule("transformer.layers.0.ff")
    site.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    return rows


@torch.no_grad()
@pytest.mark.parametrize("objective", ["v", "rectified_flow"])
def test_outputs_never_cross_the_ends_of_a_guidance_interval(objective: str):
    model = stable_audio_tools_model(objective=objective).model.model
    settings = {"cfg_scale": 3.0, "cfg_interval": (0.2, 0.8)}
    timesteps = (0.95, 0.9, 0.4, 0.3, 0.05, 0.02)
    plain_rows, plain = rows_of(model), [call(model, t, **settings) for t in timesteps]
    assert plain_rows == [1, 1, 2, 2, 1, 1]
    row = (1, 0, 0, 0, 0, 0)
    schedule = Schedule(evaluations=6, rows=dict.fromkeys(("self_attn", "cross_attn", "ff"), row))
    with cached(model, STABLE_AUDIO_TOOLS, schedule) as stats:
        outputs = [call(model, t, **settings) for t in timesteps]
    sites = len(STABLE_AUDIO_TOOLS.sites(model))
    assert stats.recomputed == 2 * sites
    assert sum(stats.reused.values()) == 3 * sites
    computed, filled = (0, 2, 4), (1, 3, 5)
    assert same([outputs[i] for i in computed], [plain[i] for i in computed])
    assert not any(torch.equal(outputs[i], plain[i]) for i in filled)


@torch.no_grad()
def test_a_strength_of_one_halves_the_rows_and_changes_what_is_kept():
    model = stable_audio_tools_model().model.model
    rows = rows_of(model)
    plain = [call(model, 0.9, cfg_scale=3.0), call(model, 0.8), call(model, 0.7)]
    assert rows == [2, 1, 1]
    schedule = Schedule(evaluations=3, rows={"ff": (1, 0, 0)})
    with cached(model, STABLE_AUDIO_TOOLS, schedule) as stats:
        outputs = [call(model, 0.9, cfg_scale=3.0), call(model, 0.8), call(model, 0.7)]
    assert same(outputs[:2], plain[:2])
    assert not torch.equal(outputs[2], plain[2])
    assert stats.recomputed == 2


def test_unconditional_passes_inside_the_denoiser_are_refused():
    model = stable_audio_tools_model().model.model
    with pytest.raises(ScheduleError, match="does not say which half of a batch is conditional"):
        attach(model, STABLE_AUDIO_TOOLS, Schedule(evaluations=4, rows={"guidance": ROW}))


def test_the_wrappers_around_the_denoiser_have_no_adapter():
    model = stable_audio_tools_model()
    for wrapper in (model, model.model):
        with pytest.raises(AdapterError, match=r"no adapter for '.*Wrapper', but .* inside of it"):
            adapter_for(wrapper)
