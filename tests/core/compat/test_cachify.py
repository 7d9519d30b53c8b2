"""The interface of cachify, on small models, with what users of it meet."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.hook_reference import assert_restored, snapshot
from kit.zoo.entry import Entry, of
from kit.zoo.pictures import (
    LATENT,
    PICTURES,
    SIZE,
    XL,
    dit_sized,
    picture,
    pooled,
    sd3_model,
    sd_words,
    unet,
    xl,
)
from kit.zoo.videos import svd
from smoothcache_core import Schedule
from smoothcache_core.compat import cachify
from smoothcache_core.errors import AdapterError, AttachError, ScheduleError
from smoothcache_core.pipelines import PipelineFamily
from torch import Tensor, nn

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

FAMILY = PipelineFamily(adapters=(), classes=(), frames=True)
STEPS = 6
ODD = {"select_cache_step_func": lambda step: (step % 2) != 0}
ALL = [{"wildcard_or_filter_func": "*", **ODD}]

THREE: dict[str, Any] = {
    "block_out_channels": (4, 8, 8),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 1),
}


def still() -> dict[str, Any]:
    strength = {"min_guidance_scale": 2.5, "max_guidance_scale": 2.5}
    return {"image": picture(), **SIZE, "num_frames": 2, **LATENT, **strength}


def named(name: str) -> Entry:
    return next(entry for entry in PICTURES if entry.name == name)


SDXL = Entry(
    name="SDXL",
    build=lambda: xl(unet=unet(**(XL | THREE))),
    arguments=lambda: {**sd_words(), **pooled(8), **SIZE},
)
SVD = Entry(name="SVD", build=svd, arguments=still, output="frames")
PIPELINES = {
    "SDXL": (SDXL, cachify.SDXL_DEFAULT_CONFIG),
    "SVD": (SVD, cachify.SVD_DEFAULT_CONFIG),
    "PixArt": (named("PixArtAlpha"), cachify.PIXART_DEFAULT_CONFIG),
    "SD3": (named("StableDiffusion3"), cachify.SD3_DEFAULT_CONFIG),
}


@pytest.fixture(params=PIPELINES)
def case(request: pytest.FixtureRequest) -> tuple[Entry, Any]:
    return PIPELINES[request.param]


def sample(entry: Entry, pipe: Any, steps: int = STEPS, seed: int = 0) -> Tensor:
    return entry.sample(pipe, seed, **{"num_inference_steps": steps})


def shortened(entry: Entry) -> Entry:
    """Return an entry that does not say how many steps it makes."""
    return Entry(
        name=entry.name, build=entry.build, arguments=entry.arguments, output=entry.output, steps={}
    )


# ---------------------------------------------------------------------------- pipelines


def test_a_prepared_pipeline_follows_its_schedule_run_after_run(
    case: tuple[Entry, Any], tmp_path: Path
):
    entry, configs = shortened(case[0]), case[1]
    pipe = entry.pipeline()
    model = cachify.get_model(pipe)
    plain, before, keys = sample(entry, pipe), snapshot(model), list(model.state_dict())
    schedule = cachify.schedule_of(pipe, configs, STEPS)
    with FAMILY.cached_pipeline(pipe, Schedule.load(schedule.save(tmp_path / "c.json"))) as stats:
        expected = sample(entry, pipe)
    assert stats.reuse_fraction > 0.0
    cachify.prepare(pipe, configs)
    assert list(model.state_dict()) == keys
    with cachify.infer(pipe) as cached_pipe:
        assert torch.equal(sample(entry, cached_pipe), expected)
    sample(entry, pipe, 5, seed=1)  # of another length, and without `infer`
    assert torch.equal(sample(entry, pipe), expected)
    cachify.disable(pipe)
    assert_restored(model, before)
    assert torch.equal(sample(entry, pipe), plain)
    cachify.enable(pipe)
    assert torch.equal(sample(entry, pipe), expected)
    cachify.disable(pipe)
    assert not torch.equal(expected, plain)


def test_a_run_that_begins_with_an_image_makes_fewer_steps():
    entry = shortened(named("StableDiffusionXLImg2Img"))
    pipe = entry.pipeline()
    plain = sample(entry, pipe, 8)
    cachify.prepare(pipe, cachify.SDXL_DEFAULT_CONFIG)
    once, again = sample(entry, pipe, 8), sample(entry, pipe, 8)
    cachify.disable(pipe)
    assert torch.equal(once, again)
    assert not torch.equal(once, plain)


def test_both_forms_of_prepare_do_the_same_and_do_not_nest():
    entry = shortened(SDXL)
    pipe = entry.pipeline()
    before, kind = snapshot(pipe.unet), type(pipe.scheduler)
    cachify.prepare(pipe, cachify.SDXL_DEFAULT_CONFIG)
    once = sample(entry, pipe)
    cachify.prepare(pipe, STEPS, cachify.SDXL_DEFAULT_CONFIG)
    assert torch.equal(sample(entry, pipe), once)
    cachify.prepare(pipe, num_inference_steps=STEPS, config_list=cachify.SDXL_DEFAULT_CONFIG)
    assert torch.equal(sample(entry, pipe), once)
    cachify.disable(pipe)
    assert_restored(pipe.unet, before)
    assert type(pipe.scheduler) is kind


def test_what_a_user_sees_of_a_module():
    entry = shortened(SDXL)
    pipe = entry.pipeline()
    cachify.prepare(pipe, STEPS, cachify.SDXL_DEFAULT_CONFIG)
    modules = cachify.cached_modules(pipe)
    assert [each.name for each in modules] == [
        *("down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block"),
        *("up_blocks.0", "up_blocks.1"),
    ]
    seen: list[tuple[int, bool]] = []

    def look(*_: Any) -> None:
        seen.append((modules[0].cur_step, modules[0].cached_results is not None))

    pipe.unet.conv_out.register_forward_hook(look)
    sample(entry, pipe)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert modules[0].block is pipe.unet.down_blocks[0]
    assert modules[0].enabled
    cachify.disable(pipe)
    assert not modules[0].enabled
    assert modules[0].cur_step == 0
    assert modules[0].cached_results is None


# ---------------------------------------------------------------------------- configurations


class Pipe:
    """A pipeline of a model and nothing else."""

    def __init__(self, model: Any) -> None:
        self.transformer = model


def pixart(layers: int = 28) -> Any:
    settings = dit_sized(sample_size=8, in_channels=4, out_channels=8, num_layers=layers)
    return of("PixArtTransformer2DModel", **settings, cross_attention_dim=16, caption_channels=16)


def blocks(schedule: Schedule) -> list[int]:
    """Return the numbers of the blocks that are reused as a whole."""
    found = [re.fullmatch(r"transformer_blocks\.(\d+)", key) for key in schedule.rows]
    assert all(found)
    return [int(each[1]) for each in found if each]


PUBLISHED_PIXART = [
    {
        "wildcard_or_filter_func": lambda name: (
            not re.search(r"transformer_blocks\.(2[1-7])\.", name)
        ),
        "select_cache_step_func": lambda step: (step % 3) != 0,
    }
]
"""As later releases have it, where it matches every block, for none ends with a dot."""

PUBLISHED_SD3 = [
    {
        "wildcard_or_filter_func": lambda name: re.search(
            r"^((?!transformer_blocks\.(1[6-9]|2[0-3])).)*$", name
        ),
        **ODD,
    }
]


@pytest.mark.parametrize("configs", [cachify.PIXART_DEFAULT_CONFIG, PUBLISHED_PIXART])
def test_of_pixart_the_last_blocks_are_computed(configs: Any):
    schedule = cachify.schedule_of(Pipe(pixart()), configs, 5)
    assert blocks(schedule) == [*range(21)]
    assert schedule.rows["transformer_blocks.0"] == (1, 0, 0, 1, 0)


@pytest.mark.parametrize("configs", [cachify.SD3_DEFAULT_CONFIG, PUBLISHED_SD3])
def test_of_sd3_the_last_blocks_are_computed(configs: Any):
    schedule = cachify.schedule_of(Pipe(sd3_model(num_layers=24)), configs, 4)
    assert blocks(schedule) == [*range(16)]
    assert schedule.rows["transformer_blocks.15"] == (1, 0, 1, 0)


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_a_step_that_is_reused_depends_on_the_latent(name: str):
    entry = PIPELINES[name][0]
    pipe = shortened(entry).pipeline()
    model = cachify.get_model(pipe)
    calls: list[Any] = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    sample(shortened(entry), pipe, 2)
    handle.remove()
    pipe.scheduler = None
    cachify.prepare(pipe, 2, ALL)
    first, second = calls[:2]
    adapter = cachify.schedule_of(pipe, ALL, 2).fingerprint.recorded_adapter
    assert adapter is not None
    outputs = []
    for shift in (0.0, 1.0):
        cachify.reset_status(pipe)
        model(*first[0], **first[1])
        outputs.append(call(model, second, str(adapter.latent), shift))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    cachify.disable(pipe)


def call(model: nn.Module, given: Any, latent: str, shift: float) -> Tensor:
    """Call a model with its latent shifted, and return what it predicts."""
    args, kwargs = given
    if latent in kwargs:
        return model(*args, **(kwargs | {latent: kwargs[latent] + shift}))[0]
    return model(args[0] + shift, *args[1:], **kwargs)[0]


def test_the_last_configuration_that_names_a_module_counts():
    third = {"select_cache_step_func": lambda step: step % 3 != 0}
    configs = [*ALL, {"wildcard_or_filter_func": "*.1.*", **third}]
    rows = cachify.schedule_of(Pipe(pixart(3)), configs, 4).rows
    assert rows == {
        "transformer_blocks.0": (1, 0, 1, 0),
        "transformer_blocks.1": (1, 0, 0, 1),
        "transformer_blocks.2": (1, 0, 1, 0),
    }


def test_layers_and_blocks_may_be_named():
    def named_by(name: Any) -> list[str]:
        configs = [{"wildcard_or_filter_func": name, **ODD}]
        return list(cachify.schedule_of(Pipe(pixart(2)), configs, 4).rows)

    whole = ["transformer_blocks.0", "transformer_blocks.1"]
    assert named_by("*") == named_by("transformer_blocks.?") == named_by("*blocks*") == whole
    assert named_by(lambda name: name.endswith("blocks.1")) == whole[1:]
    assert named_by("*attn1") == [f"{path}.attn1" for path in whole]
    assert named_by("*.0.ff") == ["transformer_blocks.0.ff"]


def test_the_last_layer_of_a_unet_is_never_reused():
    pipe = SDXL.pipeline()
    rows = cachify.schedule_of(pipe, ALL, 4).rows
    assert [key for key in rows if key.startswith("up_blocks.2")] == ["up_blocks.2.resnets.0"]
    wild = [{"wildcard_or_filter_func": "*up_blocks*", **ODD}]
    assert list(cachify.schedule_of(pipe, wild, 4).rows) == [
        *("up_blocks.0", "up_blocks.1", "up_blocks.2.resnets.0")
    ]


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("configs", "said"),
    [
        ([], "a list of dictionaries"),
        ("*", "a list of dictionaries"),
        ([{"wildcard_or_filter_func": "*"}], "configuration 0 is a dictionary with"),
        ([{"wildcard_or_filter_func": 3, **ODD}], "a wildcard or a function of a module's name"),
        (
            [{"wildcard_or_filter_func": "*", "select_cache_step_func": lambda step: True}],
            "reuses at step 0",
        ),
    ],
)
def test_a_configuration_that_is_none_is_refused(configs: Any, said: str):
    pipe = Pipe(pixart(1))
    before = snapshot(pipe.transformer)
    with pytest.raises(ScheduleError, match=said):
        cachify.prepare(pipe, 4, configs)
    assert_restored(pipe.transformer, before)


def test_names_that_match_nothing_are_refused():
    configs = [*ALL, {"wildcard_or_filter_func": "*up_blocks*", **ODD}]
    with pytest.raises(AdapterError, match="configuration 1 matches no block or layer; they are"):
        cachify.prepare(Pipe(pixart(1)), 4, configs)


def test_pipelines_that_cannot_be_cached_are_refused():
    with pytest.raises(AdapterError, match="Pipe has neither a unet nor a transformer"):
        cachify.prepare(Pipe(None), ALL)
    with pytest.raises(AdapterError, match="Linear has neither"):
        cachify.prepare(Pipe(nn.Linear(1, 1)), ALL)
    with pytest.raises(AttachError, match="this Pipe was not prepared"):
        cachify.enable(Pipe(pixart(1)))
    cachify.disable(Pipe(pixart(1)))
    with pytest.raises(ScheduleError, match="at least 1, got 0"):
        cachify.prepare(Pipe(pixart(1)), 0, ALL)
