"""Applying a schedule: what is computed, what is given, what is left behind."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from kit.helpers import (
    ADAPTER,
    DELTA,
    ROW,
    STEPS,
    ContextToy,
    DeltaToy,
    Toy,
    anatomy,
    assert_followed,
    noise,
    places,
    sample,
    schedule_of,
    sources,
)
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    attach,
    cached,
)
from smoothcache_core.errors import AdapterError, AttachError, ScheduleError
from smoothcache_core.schedule import Fingerprint
from torch import Tensor, nn

N = len(STEPS)
PAIR = ("cond", "uncond")
Sampler = Callable[[Any], list[Tensor]]


def guided(model: Any) -> list[Tensor]:
    return [model.forward_with_cfg(noise(index), t) for index, t in enumerate(STEPS)]


@dataclass(frozen=True)
class Way:
    """A toy, how it is sampled, and what calls it gets in one run."""

    make: Callable[[], Toy] = Toy
    sampler: Sampler = sample
    branches: tuple[str, ...] = ("",)
    declared: tuple[str, ...] = ()
    chunks: int = 1


WAYS = {
    "plain": Way(),
    "keywords": Way(sampler=lambda toy: sample(lambda x, t: toy(timestep=t, hidden_states=x))),
    "chunks": Way(make=lambda: Toy(chunks=3), chunks=3),
    "tuples": Way(make=lambda: Toy(pair=True)),
    "batched guidance": Way(sampler=guided),
    "declared branches": Way(
        make=lambda: Toy(chunks=3),
        sampler=lambda toy: sample(toy, branches=PAIR),
        branches=PAIR,
        declared=PAIR,
        chunks=3,
    ),
    "announced branches": Way(
        make=lambda: ContextToy(pair=True),
        sampler=lambda toy: sample(toy, branches=PAIR, announce=True),
        branches=PAIR,
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def random_weights(toy: Toy) -> Toy:
    for parameter in toy.parameters():
        nn.init.normal_(parameter)
    return toy


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


# ---------------------------------------------------------------------------- numbers


def test_reuse_by_hand():
    """One site kind at a time on whole numbers: 1 -> 3 -> 9 if all is computed."""
    toy = Toy(blocks=1, width=2)
    toy.scale = 1.0
    x = torch.ones(1, 1, 2)
    schedule = schedule_of(attn=(1, 0, 0), ff=(1, 1, 0))
    with cached(toy, ADAPTER, schedule):
        outputs = [toy(value * x, -value)[0, 0, 0].item() for value in (1, 10, 20)]
    # ff sees 10 + 2 and is computed (24), then sees 20 + 2 and is 24 again
    assert outputs == [9.0, 36.0, 46.0]


def by_hand(toy: Toy, rows: Mapping[str, Sequence[int]], branches: Sequence[str]) -> list[Tensor]:
    """Sample by an implementation of caching that shares nothing with the library."""
    kept: dict[tuple[str, int, str], Tensor] = {}
    latent, outputs = noise(), []
    gate = torch.tensor([1.0, 1.0, 1.0, 0.0])  # the last channel is the signature
    for evaluation in range(N):
        for number, branch in enumerate(branches):
            hidden = latent + number
            for index in range(len(toy.blocks)):
                for kind, row in rows.items():
                    if row[evaluation]:
                        kept[branch, index, kind] = 2 * hidden
                    hidden = hidden + kept[branch, index, kind] * gate
            outputs.append(hidden * toy.scale)
        latent = latent - outputs[-1] / 4
    return outputs


ROWS = st.lists(st.integers(0, 1), min_size=N - 1, max_size=N - 1).map(lambda rest: [1, *rest])


@settings(max_examples=40)
@given(ROWS, ROWS, st.sampled_from([("",), PAIR, ("a", "b", "c")]))
def test_outputs_are_those_of_an_independent_implementation(
    attn: list[int], ff: list[int], branches: tuple[str, ...]
):
    toy = Toy()
    attn[2] = 0
    declared = branches if len(branches) > 1 else ()
    with cached(toy, ADAPTER, schedule_of(attn=attn, ff=ff), branches=declared):
        outputs = sample(toy, branches=branches)
    assert equal(outputs, by_hand(toy, {"attn": attn, "ff": ff}, branches))


def test_all_compute_is_the_plain_model_bit_for_bit(way: Way):
    toy = random_weights(way.make())
    plain = way.sampler(toy)
    with pytest.warns(SmoothCacheWarning, match="computes everything"):
        attachment = attach(toy, ADAPTER, schedule_of((1,) * N), branches=way.declared)
    assert equal(way.sampler(toy), plain)
    attachment.detach()


def test_evaluations_before_the_first_reuse_are_the_plain_model_bit_for_bit(way: Way):
    toy = random_weights(way.make())
    plain = way.sampler(toy)
    with cached(toy, ADAPTER, schedule_of((1, 1, 1, 1, 1, 0)), branches=way.declared):
        outputs = way.sampler(toy)
    last = len(way.branches)
    assert equal(outputs[:-last], plain[:-last])
    assert not equal(outputs[-last:], plain[-last:])


def test_the_second_run_is_the_first(way: Way):
    toy = random_weights(way.make())
    with cached(toy, ADAPTER, schedule_of(), branches=way.declared) as stats:
        assert equal(way.sampler(toy), way.sampler(toy))
    assert stats.runs == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_reuse_keeps_the_data_type(dtype: torch.dtype):
    toy = Toy(pair=True).to(dtype)
    with cached(toy, ADAPTER, schedule_of()):
        outputs = sample(toy, latent=noise(dtype=dtype))
    assert {output.dtype for output in outputs} == {dtype}
    assert_followed(toy, schedule_of(), places(0))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_reuse_works_in_every_gradient_mode(mode: Callable[[], Any]):
    toy = Toy().requires_grad_(False)
    with cached(toy, ADAPTER, schedule_of()), mode():
        outputs = sample(toy)
    assert equal(outputs, by_hand(toy, {"attn": ROW, "ff": ROW}, ("",)))
    assert_followed(toy, schedule_of(), places(0))


@pytest.mark.parametrize("pair", [False, True])
def test_reused_outputs_hold_no_graph(pair: bool):
    toy, tracked = Toy(blocks=1, pair=pair), []
    site = toy.blocks[0].get_submodule("attn")
    site.register_forward_hook(lambda *call: tracked.append(first(call[2]).requires_grad))
    with cached(toy, ADAPTER, schedule_of(attn=ROW)):
        for computed, step in zip(ROW, STEPS, strict=True):
            with torch.set_grad_enabled(bool(computed)):
                toy(noise(), step)
    assert tracked == [bool(computed) for computed in ROW]


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def test_cache_may_be_made_in_inference_mode_and_used_outside():
    toy = Toy()
    with cached(toy, ADAPTER, schedule_of()):
        with torch.inference_mode():
            sample(toy)
        sample(toy)
    assert_followed(toy, schedule_of(), places(0, 1))


# ---------------------------------------------------------------------------- delta


def test_a_delta_is_added_to_the_present_input():
    toy = DeltaToy()
    with cached(toy, DELTA, Schedule(evaluations=2, rows={"block": (1, 0)})):
        outputs = [toy(torch.full((1, 1), value), value) for value in (5.0, 1.0)]
    # hidden 5 -> 15 and other 5 -> 15: deltas 10 and 10; then 1 + 10 and 1 + 10
    assert [float(output) for output in outputs] == [30.0, 22.0]


def test_a_delta_of_a_missing_argument_is_refused():
    wrong = PatternAdapter(name="x", patterns=(SitePattern("block", "b", "delta", ("nothing",)),))
    toy = DeltaToy()
    before = anatomy(toy)
    with pytest.raises(AttachError, match=r"block: a delta needs .* takes \['hidden', 'other'\]"):
        attach(toy, wrong, Schedule(evaluations=2, rows={"b": (1, 0)}))
    assert anatomy(toy) == before


# ---------------------------------------------------------------------------- who computes


def test_every_site_computes_exactly_when_planned(way: Way):
    toy, schedule = way.make(), schedule_of(attn=ROW, ff=(1, 1, 0, 0, 0, 1))
    with cached(toy, ADAPTER, schedule, branches=way.declared):
        for _ in range(3):
            way.sampler(toy)
    calls = places(0, 1, 2, branches=way.branches)
    assert_followed(toy, schedule, calls, chunks=way.chunks)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["attn", "ff-1", "blocks.0.ff"]), ROWS, min_size=1))
def test_the_most_specific_row_counts(rows: dict[str, list[int]]):
    toy = Toy()
    rows["blocks.1.attn"] = [1, 0, *ROW[2:]]
    schedule = Schedule(evaluations=N, rows=rows)
    with cached(toy, ADAPTER, schedule):
        sample(toy)
        sample(toy)
    assert_followed(toy, schedule, places(0, 1))


def test_statistics_count_evaluations_of_each_site(way: Way):
    toy = way.make()
    with cached(toy, ADAPTER, schedule_of(attn=ROW), branches=way.declared) as stats:
        way.sampler(toy)
        way.sampler(toy)
    factor = 2 * len(way.branches)
    computed = {"blocks.0.attn": 3, "blocks.1.attn": 3, "blocks.0.ff": 6, "blocks.1.ff": 6}
    assert stats.computed == {path: count * factor for path, count in computed.items()}
    assert stats.reused == {"blocks.0.attn": 3 * factor, "blocks.1.attn": 3 * factor}
    assert (stats.runs, stats.evaluations, stats.recomputed) == (2, factor * N, 0)
    assert stats.reuse_fraction == 0.25


def test_statistics_of_nothing_are_zero():
    attachment = attach(Toy(), ADAPTER, schedule_of())
    assert attachment.stats.reuse_fraction == 0.0
    with pytest.warns(SmoothCacheWarning, match="the cached model was never called"):
        attachment.detach()


# ---------------------------------------------------------------------------- restoring


class Interrupted(Exception):
    pass


def interrupt_the_model(toy: Toy, way: Way) -> None:
    def stop(*_: object) -> None:
        if toy.journal.call == 3:
            raise Interrupted

    handle = toy.blocks[1].register_forward_pre_hook(stop)
    try:
        way.sampler(toy)
    finally:
        handle.remove()


def interrupt_the_sampler(toy: Toy, way: Way) -> None:
    way.sampler(toy)
    raise Interrupted


@pytest.mark.parametrize("interrupt", [interrupt_the_model, interrupt_the_sampler])
def test_an_exception_leaves_nothing_behind(way: Way, interrupt: Callable[[Toy, Way], None]):
    toy = way.make()
    before = anatomy(toy)
    with (
        pytest.raises(Interrupted),
        cached(toy, ADAPTER, schedule_of(), branches=way.declared) as stats,
    ):
        interrupt(toy, way)
    assert anatomy(toy) == before
    assert stats.bytes_held == 0


def test_leaving_leaves_nothing_behind(way: Way):
    toy = random_weights(way.make())
    plain, before = way.sampler(toy), anatomy(toy)
    with cached(toy, ADAPTER, schedule_of(), branches=way.declared) as stats:
        assert anatomy(toy) != before
        way.sampler(toy)
        assert stats.bytes_held == 0
    assert anatomy(toy) == before
    assert equal(way.sampler(toy), plain)


def test_wrapped_modules_keep_their_names_weights_and_kinds():
    toy = Toy()
    weights = list(toy.state_dict())
    site = toy.blocks[0].get_submodule("attn")
    kind = type(site)
    attachment = attach(toy, ADAPTER, schedule_of())
    assert type(site) is not kind
    assert list(toy.state_dict()) == weights
    assert isinstance(site, kind)
    assert (type(site).__name__, type(site).__module__) == (kind.__name__, kind.__module__)
    attachment.detach(quietly=True)


def test_attach_serves_until_detach():
    toy = Toy()
    before = anatomy(toy)
    attachment = attach(toy, ADAPTER, schedule_of())
    sample(toy)
    attachment.detach()
    attachment.detach()
    assert anatomy(toy) == before
    sample(toy)
    assert attachment.stats.evaluations == N


# ---------------------------------------------------------------------------- memory


def held_after_every_call(
    rows: Mapping[str, Sequence[int]], branches: Sequence[str], sizes: Mapping[str, int]
) -> list[int]:
    """Return the bytes that must be held after every call: what the next evaluation reuses."""
    held: dict[tuple[str, str], int] = {}
    history = []
    for evaluation in range(N):
        for branch in branches:
            for kind, row in rows.items():
                reused = evaluation + 1 < N and not row[evaluation + 1]
                held[branch, kind] = sizes[kind] if reused else 0
            history.append(sum(held.values()))
    return history


@settings(max_examples=25)
@given(ROWS, ROWS, st.sampled_from([("",), PAIR]), st.booleans())
def test_bytes_held_follow_from_the_rows(
    attn: list[int], ff: list[int], branches: tuple[str, ...], pair: bool
):
    attn[1] = 0
    toy, rows = Toy(blocks=3, pair=pair), {"attn": attn, "ff": ff}
    output = 3 * 2 * 3 * 4 * 4  # blocks, then (2, 3, 4) of float32
    sizes = {"attn": output + (3 * 2 * 1 * 4 * 4 if pair else 0), "ff": output}
    seen = []
    declared = branches if len(branches) > 1 else ()
    with cached(toy, ADAPTER, schedule_of(**rows), branches=declared) as stats:

        def watched(*call: Any) -> Tensor:
            output = toy(*call)
            seen.append(stats.bytes_held)
            return output

        sample(watched, branches=branches)
    expected = held_after_every_call(rows, branches, sizes)
    assert seen == expected
    assert stats.bytes_peak == max(expected)
    assert stats.bytes_held == 0


def living(tokens: int) -> int:
    """Return how many storages of tensors with `tokens` tokens are alive."""
    tensors = [item for item in gc.get_objects() if type(item) is Tensor and item.dim() == 3]
    return len({tensor.data_ptr() for tensor in tensors if tensor.shape[1] == tokens})


def test_tensors_live_as_long_as_they_are_needed():
    toy, tokens = Toy(blocks=2), 13
    latent = noise(shape=(1, tokens, 4))
    attachment = attach(toy, ADAPTER, schedule_of(attn=ROW))
    alive = []
    with torch.no_grad():
        for step in STEPS:
            toy(latent, step)
            # less the latent itself, its copy, and the output: the next latent comes of them
            alive.append(living(tokens) - 3)
        toy(latent, STEPS[0])
    assert alive == [0 if following else 2 for following in (*ROW[1:], 1)]
    assert living(tokens) - 3 == 2
    attachment.detach(quietly=True)
    assert living(tokens) - 1 == 0


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(evaluations=2, rows={"mlp": (1, 0)}), r"\['mlp'\].*kinds are \['attn', 'ff'\]"),
        (Schedule(evaluations=2, rows={"ff-2": (1, 0)}), r"names \['ff-2'\]"),
        (
            Schedule(
                evaluations=2, rows={"ff": (1, 0)}, fingerprint=Fingerprint(model_class="DiT")
            ),
            "model_class is 'Toy' instead of 'DiT'",
        ),
        (
            Schedule(evaluations=2, rows={"ff": (1, 0)}, fingerprint=Fingerprint(adapter="dit")),
            "adapter is 'toy' instead of 'dit'",
        ),
    ],
    ids=["kind", "block", "class", "adapter"],
)
def test_a_schedule_for_something_else_is_refused(schedule: Schedule, message: str):
    toy = Toy()
    before = anatomy(toy)
    with pytest.raises(ScheduleError, match=message), cached(toy, ADAPTER, schedule):
        pytest.fail("entered")
    assert anatomy(toy) == before


@pytest.mark.parametrize(
    ("fingerprint", "message"),
    [
        (Fingerprint(solver="Heun"), "solver is 'Euler' instead of 'Heun'"),
        (Fingerprint(branches=PAIR), r"branches is \(\) instead of \('cond', 'uncond'\)"),
        (Fingerprint(latent_shape=(9, 9)), r"latent_shape is \(3, 4\) instead of \(9, 9\)"),
        (Fingerprint(dtype="float16"), "dtype is 'float32' instead of 'float16'"),
        (Fingerprint(timesteps=(9.5, 7.0, 5.0, 4.0, 2.0, 1.0)), "evaluation 0: 9, calibrated 9.5"),
    ],
    ids=["solver", "branches", "shape", "dtype", "timesteps"],
)
def test_harmless_differences_are_told_once(fingerprint: Fingerprint, message: str):
    toy = Toy()
    schedule = schedule_of().changed(fingerprint=fingerprint)
    with pytest.warns(SmoothCacheWarning, match=message) as told:
        sample_twice(toy, schedule, solver="Euler")
    assert len(told) == 1
    assert_followed(toy, schedule, places(0, 1))


def sample_twice(toy: Toy, schedule: Schedule, solver: str) -> None:
    with cached(toy, ADAPTER, schedule, solver=solver):
        sample(toy)
        sample(toy)


def test_a_second_cache_is_refused():
    toy = Toy()
    with cached(toy, ADAPTER, schedule_of()):
        before = anatomy(toy)
        with pytest.raises(AttachError, match="a cache is attached to this Toy already"):
            attach(toy, ADAPTER, schedule_of())
        assert anatomy(toy) == before
        sample(toy)
    assert_followed(toy, schedule_of(), places(0))


class Unused(Toy):
    """Has a sub-layer that it does not call as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[1].spare = nn.Linear(4, 4)


def test_a_site_that_is_never_called_is_an_error():
    toy = Unused()
    adapter = PatternAdapter(name="x", patterns=(SitePattern("blocks.1.spare", "spare"),))
    before = anatomy(toy)
    attachment = attach(toy, adapter, Schedule(evaluations=N, rows={"spare": ROW}))
    with pytest.raises(AttachError, match=r"'blocks.1.spare' was not called in evaluation 0"):
        sample(toy)
    attachment.detach(quietly=True)
    assert anatomy(toy) == before


def test_a_site_inside_another_is_refused():
    toy = Toy()
    nested = PatternAdapter(
        name="nested", patterns=(SitePattern("blocks.*", "block"), *ADAPTER.patterns)
    )
    before = anatomy(toy)
    with pytest.raises(ScheduleError, match=r"'blocks.0.attn' is inside 'blocks.0'"):
        attach(toy, nested, Schedule(evaluations=2, rows={"block": (1, 0), "attn": (1, 0)}))
    assert anatomy(toy) == before
    with cached(toy, nested, Schedule(evaluations=N, rows={"ff": ROW})):
        sample(toy)
    assert_followed(toy, Schedule(evaluations=N, rows={"ff": ROW}), places(0))


def test_a_denoiser_without_the_arguments_is_refused():
    adapter = PatternAdapter(name="x", patterns=ADAPTER.patterns, latent="sample")
    with pytest.raises(AdapterError, match=r"expects an argument 'sample', but Toy.forward takes"):
        attach(Toy(), adapter, schedule_of())


@pytest.mark.parametrize("scheduler", [object(), nn.Identity()])
def test_something_that_is_no_scheduler_leaves_the_model_alone(scheduler: Any):
    toy = ContextToy()
    before = anatomy(toy)
    with pytest.raises(AttachError, match="set_timesteps"):
        attach(toy, ADAPTER, schedule_of(), scheduler=scheduler)
    assert anatomy(toy) == before


def test_a_run_without_reuse_is_told():
    toy = Toy()
    attachment = attach(toy, ADAPTER, schedule_of((1, 0)))
    for batch in (1, 2):
        toy(noise(shape=(batch, 3, 4)), -batch)
    with pytest.warns(SmoothCacheWarning, match="nothing was skipped"):
        attachment.detach()
    assert attachment.stats.recomputed == 4


class ListSublayer(nn.Module):
    def forward(self, hidden: Tensor, other: Tensor) -> list[Tensor]:
        return [hidden, other]


def test_an_output_that_cannot_be_kept_is_refused():
    toy = DeltaToy()
    toy.block = ListSublayer()
    adapter = PatternAdapter(name="x", patterns=(SitePattern("block", "block"),))
    attachment = attach(toy, adapter, Schedule(evaluations=2, rows={"block": (1, 0)}))
    with pytest.raises(AttachError, match="'block' gives a list; only a tensor or a tuple"):
        toy(torch.ones(1, 1), 1.0)
    attachment.detach(quietly=True)


def test_sources_of_the_test_kit():
    assert sources(ROW, places(0)) == [0, 0, 0, 3, 3, 5]
    assert sources((1, 0), places(0, 1, evaluations=2, branches=PAIR)) == [0, 1, 0, 1, 4, 5, 4, 5]
