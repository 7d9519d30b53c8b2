"""UNets: their blocks and layers as sites, through real pipelines of diffusers."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.hook_reference import assert_restored, snapshot
from kit.zoo.entry import Entry
from kit.zoo.pictures import LATENT, SIZE, XL, picture, pooled, sd, sd_words, unet, xl
from kit.zoo.videos import svd
from smoothcache_core import PatternAdapter, Schedule, calibrate, plan
from smoothcache_core.adapters import unet_blocks, unet_layers
from smoothcache_core.adapters.unets import layers_of
from smoothcache_core.errors import AdapterError, ScheduleError
from smoothcache_core.pipelines import PipelineFamily
from smoothcache_core.sources import deepcache, deepcache_adapter
from torch import nn

from tools.bench.baselines.deepcache import difference, helper_class

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:a run of 5 evaluations"),
    pytest.mark.filterwarnings("ignore:only 1 sample was calibrated"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

FAMILY = PipelineFamily(adapters=(), classes=(), frames=True)
FEW = {"num_inference_steps": 5}

DEEP: dict[str, Any] = {
    "layers_per_block": 2,
    "block_out_channels": (4, 8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}


def still() -> dict[str, Any]:
    """Return arguments of a video whose frames are all guided by one strength."""
    strength = {"min_guidance_scale": 2.5, "max_guidance_scale": 2.5}
    return {"image": picture(), **SIZE, "num_frames": 2, **LATENT, **strength}


ENTRIES = (
    Entry(
        name="SD",
        build=lambda: sd(unet=unet(**DEEP)),
        arguments=lambda: {**sd_words(), **SIZE},
        steps=FEW,
    ),
    Entry(
        name="SDXL",
        build=lambda: xl(unet=unet(**XL)),
        arguments=lambda: {**sd_words(), **pooled(8), **SIZE},
        steps=FEW,
    ),
    Entry(name="SVD", build=svd, arguments=still, output="frames", steps=FEW),
)
SD = ENTRIES[0]
ADAPTERS = (unet_blocks, unet_layers)


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def schedule_of(adapter: PatternAdapter, row: tuple[int, ...]) -> Schedule:
    return Schedule(evaluations=len(row), rows={pattern.kind: row for pattern in adapter.patterns})


@contextmanager
def reused(model: nn.Module, skips: dict[str, Callable[[int], bool]]) -> Generator[None]:
    """Give what a module gave before, by plain forward hooks.

    Args:
        model: The denoiser.
        skips: By paths of modules, whether an evaluation of a run is skipped.
    """
    count, known, handles = [-1], dict[str, Any](), list[Any]()

    def begin(*_: object) -> None:
        count[0] += 1

    def hook(path: str) -> Any:
        def given(module: object, args: object, output: Any) -> Any:
            del module, args
            if not skips[path](count[0]):
                known[path] = output
            return known[path]

        return given

    handles.append(model.register_forward_pre_hook(begin))
    handles += [model.get_submodule(path).register_forward_hook(hook(path)) for path in skips]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------- pipelines


@pytest.mark.parametrize("adapter_of", ADAPTERS)
def test_a_pipeline_follows_a_schedule_exactly(entry: Entry, adapter_of: Any):
    pipe = entry.pipeline()
    adapter = adapter_of(pipe.unet)
    paths = [site.path for site in adapter.sites(pipe.unet)]
    row = (1, 0, 1, 0, 0)
    plain = entry.sample(pipe, 0)
    before = snapshot(pipe.unet)
    with reused(pipe.unet, {path: lambda n: not row[n] for path in paths}):
        expected = entry.sample(pipe, 0)
    with FAMILY.cached_pipeline(pipe, schedule_of(adapter, row), adapter=adapter) as stats:
        once, _, again = (entry.sample(pipe, seed) for seed in (0, 1, 0))
    assert torch.equal(once, expected)
    assert torch.equal(again, expected)
    assert not torch.equal(once, plain)
    assert stats.reused == dict.fromkeys(paths, 9)
    assert_restored(pipe.unet, before)
    assert torch.equal(entry.sample(pipe, 0), plain)


def test_computing_everything_is_bit_identical(entry: Entry):
    pipe = entry.pipeline()
    plain = entry.sample(pipe, 0)
    for adapter in (each(pipe.unet) for each in ADAPTERS):
        with (
            pytest.warns(UserWarning, match="computes everything"),
            FAMILY.cached_pipeline(pipe, schedule_of(adapter, (1,) * 5), adapter=adapter),
        ):
            assert torch.equal(entry.sample(pipe, 0), plain)


@pytest.mark.parametrize(
    "adapter_of", [unet_blocks, pytest.param(unet_layers, marks=pytest.mark.zoo)]
)
def test_a_pipeline_is_calibrated_planned_and_run(entry: Entry, adapter_of: Any, tmp_path: Path):
    pipe = entry.pipeline()
    adapter = adapter_of(pipe.unet)
    sampler = FAMILY.sampler_of(pipe, partial(entry.sample, pipe), adapter=adapter)
    calibration = calibrate(sampler, seeds=[0], max_lag=2, progress=False)
    assert calibration.sites == adapter.sites(pipe.unet)
    assert (calibration.mean()[:, 0, 0, :4] > 0).all()
    assert all(cost.bytes > 0 for cost in calibration.cost.sites)
    schedule = plan(calibration, compute=0.8, target="site")
    loaded = Schedule.load(schedule.save(tmp_path / "plan.json"))
    with FAMILY.cached_pipeline(pipe, loaded) as stats:  # it says where its sites are
        entry.sample(pipe, 0)
    assert schedule.compute_fraction() <= 0.8
    assert stats.reuse_fraction > 0.0


def test_what_is_reused_leaves_the_prediction_dependent_on_the_latent(entry: Entry):
    """Of an evaluation in which all sites are filled."""
    model = entry.pipeline().unet
    last = f"up_blocks.{len(model.up_blocks) - 1}"
    final = max(layer.number for layer in layers_of(model, last) if not layer.sampler)
    for adapter in (each(model) for each in (*ADAPTERS, deepcache_adapter)):
        paths = [site.path for site in adapter.sites(model)]
        assert last not in paths
        assert f"{last}.resnets.{final}" not in paths


# ---------------------------------------------------------------------------- DeepCache


def by_deepcache(model: Any, interval: int, branch: int) -> dict[str, Callable[[int], bool]]:
    """Return what DeepCache skips, as its package decides it module by module."""
    block, layer = divmod(branch, 3)
    depth, skips = len(model.down_blocks), dict[str, Callable[[int], bool]]()

    def note(path: str, way: str, depth: int, number: int) -> None:
        deep = number >= layer if way == "down" else number > layer
        if depth > block or (depth == block and deep):
            skips[path] = lambda evaluation: evaluation % interval != 0

    skips["mid_block"] = lambda evaluation: evaluation % interval != 0
    for n, each in enumerate(model.down_blocks):
        note(f"down_blocks.{n}", "down", n, 0)
        for name in ("resnets", "attentions"):
            for k, _ in enumerate(getattr(each, name, ())):
                note(f"down_blocks.{n}.{name}.{k}", "down", n, k)
        if each.downsamplers:
            note(f"down_blocks.{n}.downsamplers.0", "down", n, len(each.resnets))
    for n, each in enumerate(model.up_blocks):
        note(f"up_blocks.{n}", "up", depth - n - 1, 0)
        for name in ("resnets", "attentions"):
            for k, _ in enumerate(getattr(each, name, ())):
                number = len(each.resnets) - k - 1
                note(f"up_blocks.{n}.{name}.{k}", "up", depth - n - 1, number)
    return skips


def test_deepcache_is_its_rule(entry: Entry, tmp_path: Path):
    pipe = entry.pipeline()
    for interval, branch in ((2, 0), (3, 1), (2, 2), (4, 3), (2, 4)):
        with reused(pipe.unet, by_deepcache(pipe.unet, interval, branch)):
            expected = entry.sample(pipe, 0)
        schedule = deepcache(pipe.unet, interval=interval, branch=branch, evaluations=5)
        loaded = Schedule.load(schedule.save(tmp_path / "deepcache.json"))
        with FAMILY.cached_pipeline(pipe, loaded):
            assert torch.equal(entry.sample(pipe, 0), expected), (interval, branch)


def test_the_outermost_branch_skips_all_but_the_last_layer():
    model = SD.pipeline().unet
    paths = [site.path for site in deepcache_adapter(model, 0).sites(model)]
    assert paths == [
        *("down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block"),
        *("up_blocks.0", "up_blocks.1", "up_blocks.2.resnets.0", "up_blocks.2.attentions.0"),
        *("up_blocks.2.resnets.1", "up_blocks.2.attentions.1"),
    ]


def test_a_timestep_that_is_there_twice_is_one_step_to_deepcache():
    model, twice = SD.pipeline().unet, (9, 7, 7, 5, 3)  # as PNDM has them
    schedule = deepcache(model, interval=2, evaluations=5, timesteps=twice)
    assert schedule.rows["mid"] == (1, 0, 0, 0, 1)
    assert deepcache(model, interval=2, evaluations=5).rows["mid"] == (1, 0, 1, 0, 1)
    with pytest.raises(ScheduleError, match="4 evaluations have as many timesteps, got 5"):
        deepcache(model, interval=2, evaluations=4, timesteps=twice)


def test_an_interval_or_a_branch_that_is_not_there_is_refused():
    model = SD.pipeline().unet
    with pytest.raises(AdapterError, match="3 blocks down, so its branches are 0 to 8, got 9"):
        deepcache(model, interval=2, branch=9, evaluations=5)
    with pytest.raises(ScheduleError, match="at least 1, got 0 and 5"):
        deepcache(model, interval=0, evaluations=5)


def test_another_denoiser_is_refused():
    with pytest.raises(AdapterError, match="Linear is no UNet of diffusers' kind"):
        unet_blocks(nn.Linear(1, 1))


@pytest.mark.skipif(helper_class() is None, reason="needs the package DeepCache")
def test_deepcache_is_the_package(entry: Entry):
    pipe = entry.pipeline()
    differences = {
        difference(pipe, partial(entry.sample, pipe, 0), interval=interval, branch=branch)
        for interval in (2, 3, 5)
        for branch in range(3 * len(pipe.unet.down_blocks) - 1)
    }
    assert differences == {0.0}
