"""Together with the hooks of accelerate and diffusers, put on before or after the cache."""

from collections.abc import Callable
from typing import Any, Protocol

import accelerate
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers.hooks.hooks import HookRegistry, ModelHook as DiffusersHook
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.models.cache_utils import CacheMixin
from kit.helpers import (
    ADAPTER,
    DELTA,
    ROW,
    STEPS,
    DeltaToy,
    Toy,
    assert_followed,
    places,
    sample,
    schedule_of,
    silent,
)
from smoothcache_core import Schedule, attach, cached, calibrate
from smoothcache_core.errors import AttachError
from smoothcache_core.runtime import Attachment
from torch import nn

N = len(STEPS)
PAIR = ("cond", "uncond")


class Hooks(Protocol):
    """Puts a hook on modules and counts its calls."""

    calls: int

    def on(self, module: nn.Module) -> None: ...
    def off(self, module: nn.Module) -> None: ...


class AccelerateHooks(ModelHook):
    calls = 0

    def on(self, module: nn.Module) -> None:
        add_hook_to_module(module, self, append=True)

    def off(self, module: nn.Module) -> None:
        remove_hook_from_module(module)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        del module
        self.calls += 1
        return args, kwargs


class DiffusersHooks(DiffusersHook):
    calls = 0

    def on(self, module: nn.Module) -> None:
        HookRegistry.check_if_exists_or_initialize(module).register_hook(self, "counting")

    def off(self, module: nn.Module) -> None:
        HookRegistry.check_if_exists_or_initialize(module).remove_hook("counting")

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        del module
        self.calls += 1
        return args, kwargs


LIBRARIES: dict[str, Callable[[], Hooks]] = {
    "accelerate": AccelerateHooks,
    "diffusers": DiffusersHooks,
}


def attributes(toy: nn.Module) -> dict[str, tuple[type, set[str]]]:
    """Return classes and attributes, but for a `forward` that is as good as none.

    Both libraries leave it behind, on the instance, when they remove a hook.
    """
    return {name: (type(module), attributes_of(module)) for name, module in toy.named_modules()}


def attributes_of(module: nn.Module) -> set[str]:
    own = set(vars(module))
    plain = getattr(vars(module).get("forward"), "__func__", None) is type(module).forward
    return own - {"forward"} if plain else own


class Stage:
    """A toy that is hooked, cached and checked in any order."""

    def __init__(self, library: str, path: str) -> None:
        self.toy, self.hooks = Toy(pair=True), LIBRARIES[library]()
        self.module = self.toy.get_submodule(path)
        self.attachment: Attachment | None = None
        self.runs = 0

    def on(self) -> None:
        self.hooks.on(self.module)

    def off(self) -> None:
        self.hooks.off(self.module)

    def cache(self) -> None:
        self.toy.journal.__init__()
        self.runs = 0
        self.attachment = attach(self.toy, ADAPTER, schedule_of())

    def uncache(self) -> None:
        assert self.attachment is not None
        self.attachment.detach(quietly=True)
        self.attachment = None

    def check(self, hooked: bool) -> None:
        """Sample, and see that the plan was followed and the hook was called."""
        calls = self.hooks.calls
        sample(self.toy)
        self.runs += 1
        if self.attachment is not None:
            assert_followed(self.toy, schedule_of(), places(*range(self.runs)))
        called = self.hooks.calls - calls
        reused = 0 if self.attachment is None else ROW.count(0)
        assert N - reused <= called <= N if hooked else called == 0


ORDERS = [
    "on cache uncache off",
    "on cache off uncache",
    "cache on uncache off",
    "cache on off uncache",
]


@pytest.mark.parametrize("path", ["", "blocks.0.attn", "blocks.1.ff"])
@pytest.mark.parametrize(
    ("library", "order"),
    [
        *(("accelerate", order) for order in ORDERS),
        ("diffusers", "on cache uncache off"),
        ("diffusers", "cache on off uncache"),
    ],
)
def test_hooks_and_cache_come_and_go_in_any_order(library: str, order: str, path: str):
    stage, control = Stage(library, path), Stage(library, path)
    hooked = False
    for step in order.split():
        getattr(stage, step)()
        hooked = step == "on" or (hooked and step != "off")
        stage.check(hooked)
    control.on()
    control.off()
    assert attributes(stage.toy) == attributes(control.toy)
    assert "forward" not in attributes_of(stage.module)
    assert all(map(torch.equal, sample(stage.toy), sample(control.toy)))


@pytest.mark.parametrize("path", ["", "blocks.0.attn", "blocks.1.ff"])
def test_a_cache_under_a_hook_of_diffusers_waits_for_it_to_go(path: str):
    stage = Stage("diffusers", path)
    before = attributes(stage.toy)
    stage.cache()
    stage.on()
    stage.check(hooked=True)
    with pytest.raises(AttachError, match=f"{path or 'the denoiser'}: something replaced"):
        stage.uncache()
    stage.check(hooked=True)
    stage.off()
    stage.check(hooked=False)
    stage.uncache()
    vars(stage.module).pop("_diffusers_hook")
    assert attributes(stage.toy) == before


@pytest.mark.parametrize("path", ["blocks.0.attn", "blocks.1.ff"])
def test_a_cache_over_a_hook_of_diffusers_notices_that_it_was_taken_away(path: str):
    """Removing that hook restores what was before it and takes the cache of the site along."""
    stage, control = Stage("diffusers", path), Stage("diffusers", path)
    stage.on()
    stage.cache()
    stage.off()
    with pytest.raises(AttachError, match=f"'{path}' was not called"):
        stage.check(hooked=False)
    stage.uncache()
    stage.check(hooked=False)
    control.on()
    control.off()
    assert attributes(stage.toy) == attributes(control.toy)


def test_a_denoiser_whose_cache_was_taken_away_computes_everything():
    stage = Stage("diffusers", "")
    stage.on()
    stage.cache()
    sample(stage.toy, STEPS[:2])
    stage.off()
    outputs = sample(stage.toy)
    assert all(map(torch.equal, outputs, sample(Toy(pair=True))))
    stage.uncache()
    assert not any("smoothcache" in name for name in vars(stage.toy))


@pytest.mark.parametrize("path", ["", "blocks.0.attn"])
def test_hooks_may_be_stacked(path: str):
    """One of each library below the cache, and one of accelerate on top."""
    toy = Toy()
    module = toy.get_submodule(path)
    below, above = DiffusersHooks(), AccelerateHooks()
    below.on(module)
    with cached(toy, ADAPTER, schedule_of()):
        above.on(module)
        sample(toy)
        above.off(module)
        sample(toy)
    assert_followed(toy, schedule_of(), places(0, 1))
    assert above.calls > 0
    calls = below.calls
    sample(toy)
    assert below.calls == calls + N


# ---------------------------------------------------------------------------- offloading


@pytest.mark.parametrize("first", ["offload", "cache"])
def test_model_offload_that_every_pipeline_call_takes_off_and_puts_on(first: str):
    """As `enable_model_cpu_offload` and `maybe_free_model_hooks` of diffusers do."""
    toy, schedule = Toy(), schedule_of()
    attachment = attach(toy, ADAPTER, schedule) if first == "cache" else None
    _, hook = accelerate.cpu_offload_with_hook(toy, "cpu")
    attachment = attachment or attach(toy, ADAPTER, schedule)
    for _ in range(3):
        sample(toy)
        hook.offload()
        hook.remove()
        _, hook = accelerate.cpu_offload_with_hook(toy, "cpu")
    attachment.detach()
    assert_followed(toy, schedule, places(0, 1, 2))
    hook.remove()
    assert set(vars(toy)) - set(vars(Toy())) == {"forward"}  # what accelerate leaves
    assert vars(toy)["forward"].__func__ is Toy.forward


@pytest.mark.parametrize("first", ["offload", "cache"])
def test_sequential_offload_gives_the_same_numbers(first: str):
    plain, toy, schedule = Toy(), Toy(), schedule_of()
    with cached(plain, ADAPTER, schedule):
        expected = sample(plain)
    attachment = attach(toy, ADAPTER, schedule) if first == "cache" else None
    accelerate.cpu_offload(toy, torch.device("cpu"))
    attachment = attachment or attach(toy, ADAPTER, schedule)
    assert all(map(torch.equal, sample(toy), expected))
    attachment.detach()
    assert_followed(toy, schedule, places(0))
    assert next(toy.parameters()).device.type == "meta"  # still offloaded


# ---------------------------------------------------------------------------- deltas, probes


@pytest.mark.parametrize("library", LIBRARIES)
def test_deltas_work_under_hooks(library: str):
    toy, plain = DeltaToy(), DeltaToy()
    schedule = Schedule(evaluations=2, rows={"block": (1, 0)})
    LIBRARIES[library]().on(toy.block)
    with cached(plain, DELTA, schedule):
        expected = [plain(torch.full((1, 1), value), value) for value in (5.0, 1.0)]
    with cached(toy, DELTA, schedule):
        assert [toy(torch.full((1, 1), value), value) for value in (5.0, 1.0)] == expected


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("path", ["", "blocks.1.ff"])
def test_calibration_works_under_hooks(library: str, path: str):
    def record(toy: Toy) -> Any:
        sampler = silent(toy, lambda seed: sample(toy))
        return calibrate(sampler, seeds=[0], max_lag=3, sensitivity=0, progress=False)

    toy, hooks = Toy(), LIBRARIES[library]()
    hooks.on(toy.get_submodule(path))
    before = attributes(toy)
    assert record(toy) == record(Toy())
    assert attributes(toy) == before
    assert hooks.calls == N


# ---------------------------------------------------------------------------- diffusers' caches


class CachingToy(CacheMixin, Toy):
    """A denoiser that is told what diffusers' own caches are told."""


def test_a_cache_of_diffusers_is_refused_until_it_is_disabled():
    toy = CachingToy()
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    toy.enable_cache(config)
    with pytest.raises(AttachError, match="own cache is enabled on this CachingToy; call its dis"):
        attach(toy, ADAPTER, schedule_of())
    toy.disable_cache()
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy)
    assert_followed(toy, schedule_of(), places(0))


def test_contexts_of_diffusers_name_the_branches_and_its_reset_ends_the_run():
    toy = CachingToy()
    with cached(toy, ADAPTER, schedule_of()) as stats:
        for _ in range(2):
            sample(toy, branches=PAIR, announce=True)
            toy._reset_stateful_cache()  # pyright: ignore[reportPrivateUsage]
    assert stats.runs == 2
    assert_followed(toy, schedule_of(), places(0, 1, branches=PAIR))
    assert not {"cache_context", "_reset_stateful_cache"} & set(vars(toy))
