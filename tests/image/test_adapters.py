"""The adapters of the image package: the contract, and what is special about single ones."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import smoothcache_image
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from kit.adapter_contract import (
    EVALUATIONS,
    ROW,
    AdapterContract,
    Case,
    GuidanceContract,
    kinds,
    same,
    schedule_of,
)
from kit.hook_reference import assert_restored, counted, hooked, snapshot
from kit.image_models import CASES, DiT, sd3
from smoothcache_core import Schedule, attach, cached
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.errors import AdapterError
from smoothcache_image import ADAPTERS, FACEBOOK_DIT, FLUX, LUMINA2, SD3, Z_IMAGE, adapter_for
from torch import Tensor, nn

FLUX_CASE = next(case for case in CASES if case.adapter is FLUX)
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


# ---------------------------------------------------------------------------- sites


def test_every_adapter_is_tested():
    assert [case.adapter for case in CASES] == list(ADAPTERS)
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)


def test_every_adapter_is_public():
    public = [getattr(smoothcache_image, name) for name in smoothcache_image.__all__]
    assert all(any(adapter is value for value in public) for adapter in ADAPTERS)


def test_sd3_skips_what_a_block_does_not_have():
    kinds_of_blocks = {(site.kind, site.block) for site in SD3.sites(sd3())}
    assert ("attn2", 0) in kinds_of_blocks
    assert ("attn2", 1) not in kinds_of_blocks
    assert ("ff_context", 1) in kinds_of_blocks
    assert ("ff_context", 2) not in kinds_of_blocks


def test_sd3_without_dual_attention_has_no_attn2():
    assert kinds(SD3.sites(sd3(dual_attention_layers=()))) == ["attn", "ff", "ff_context"]


@pytest.mark.parametrize("adapter", [LUMINA2, Z_IMAGE], ids=lambda adapter: adapter.name)
def test_context_refiners_depend_on_the_text_alone(adapter: Any):
    case = next(case for case in CASES if case.adapter is adapter)
    model = case.model()
    outputs: list[Tensor] = []
    refiner = model.get_submodule("context_refiner.1")
    refiner.register_forward_hook(lambda *call: outputs.append(call[-1]))
    case.run(model)
    assert len(outputs) == EVALUATIONS
    assert same(outputs, outputs[:1] * EVALUATIONS)


# ---------------------------------------------------------------------------- finding an adapter

UNET: dict[str, Any] = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}


def test_adapter_is_found_by_a_base_class():
    model = FLUX_CASE.model()
    model.__class__ = type("Sharded", (type(model),), {})
    assert adapter_for(model) is FLUX


def test_unknown_class_gets_the_known_ones_and_a_way_out():
    with pytest.raises(AdapterError, match=r"no adapter for 'Linear'.*'DiT'.*PatternAdapter\("):
        adapter_for(nn.Linear(1, 1))


def test_unknown_denoiser_has_whole_evaluations():
    model = UNet2DModel(block_out_channels=(8,), norm_num_groups=4, **UNET)
    assert adapter_for(model) == whole_evaluations(model)
    assert adapter_for(model).latent == "sample"


def test_foreign_adapter_is_refused_before_anything_is_changed():
    model = FLUX_CASE.model()
    before = snapshot(model)
    with pytest.raises(AdapterError, match="'facebook-dit' found nothing at"):
        attach(model, FACEBOOK_DIT, Schedule(evaluations=4, rows={"attn": ROW}))
    assert_restored(model, before)


@torch.no_grad()
def test_a_delta_on_unchanged_inputs_gives_the_computed_output():
    model = FLUX_CASE.model()
    nn.init.zeros_(model.get_parameter("time_text_embed.timestep_embedder.linear_2.weight"))
    arguments = FLUX_CASE.arguments(0)
    plain = model(**arguments).sample
    with cached(model, FLUX, Schedule(evaluations=3, rows={"single": (1, 0, 0)})) as stats:
        for timestep in (1.0, 0.6, 0.2):
            arguments["timestep"] = torch.full_like(arguments["timestep"], timestep)
            torch.testing.assert_close(model(**arguments).sample, plain)
    assert stats.reused == {f"single_transformer_blocks.{block}": 2 for block in range(3)}


# ---------------------------------------------------------------------------- facebook's DiT


def facebook_dit() -> nn.Module:
    """Return a tiny model of the real class, from the folder that holds its `models.py`."""
    folder = os.getenv("FACEBOOK_DIT_SOURCE")
    if folder is None:
        pytest.skip("FACEBOOK_DIT_SOURCE does not name a folder with facebookresearch/DiT")
    spec = importlib.util.spec_from_file_location("facebook_dit", Path(folder) / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.DiT(input_size=8, hidden_size=16, depth=2, num_heads=2, num_classes=10)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("build", [DiT, facebook_dit], ids=["clean-room", "real"])
@torch.no_grad()
def test_forward_with_cfg_is_counted_and_cached(build: Callable[[], nn.Module]):
    model = build()
    before = snapshot(model)
    assert adapter_for(model) is FACEBOOK_DIT
    sites = FACEBOOK_DIT.sites(model)
    assert [site.path for site in sites] == [
        f"blocks.{block}.{part}" for part in ("attn", "mlp") for block in range(2)
    ]

    def sample() -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        latent = torch.randn(1, 4, 8, 8, generator=generator).repeat(2, 1, 1, 1)
        outputs = []
        for timestep in (999, 666, 333, 0):
            moment, labels = torch.tensor([timestep] * 2), torch.tensor([3, 10])
            outputs.append(model.forward_with_cfg(latent, moment, labels, 4.0))  # pyright: ignore[reportCallIssue] torch's stub types attributes as tensors
            latent = latent - 0.1 * outputs[-1][:, :4]
        return outputs

    with counted(model, sites) as plain_calls:
        plain = sample()
    with hooked(model, sites, ROW):
        expected = sample()
    with counted(model, sites) as calls, cached(model, FACEBOOK_DIT, schedule_of(sites)) as stats:
        outputs, again = sample(), sample()
    assert stats.evaluations == 2 * EVALUATIONS
    assert stats.runs == 2
    assert calls == plain_calls
    assert same(outputs, expected)
    assert same(again, outputs)
    assert not same(outputs, plain)
    assert_restored(model, before)
