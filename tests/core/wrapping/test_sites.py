"""Spans: consecutive blocks that are one site."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from hypothesis import given, settings, strategies as st
from kit.helpers import STEPS, Toy, anatomy, noise, sample, silent
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    SpanPattern,
    attach,
    cached,
    calibrate,
)
from smoothcache_core.adapters import Site
from smoothcache_core.errors import AdapterError, AttachError, ScheduleError
from smoothcache_core.runtime.graphs import variants
from smoothcache_core.schedule import Cost, Fill, SiteCost
from smoothcache_core.schedule.timeline import COMPUTE, FILL, REUSE, STORE, timeline
from torch import Tensor, nn

N = len(STEPS)
PAIR = ("cond", "uncond")
LINE = (2.0, -1.0)
SPAN = SpanPattern("blocks", "span", first=1, last=-2, inputs=("hidden",))
ADAPTER = PatternAdapter(name="spans", patterns=(SPAN,))
SITE = Site(
    path="blocks.1", last="blocks.3", kind="span", block=1, target="delta", inputs=("hidden",)
)


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


# ---------------------------------------------------------------------------- sites


def test_a_span_is_one_site_of_all_its_blocks():
    assert ADAPTER.sites(Toy(blocks=5)) == (SITE,)
    assert SITE.paths == ("blocks.1", "blocks.2", "blocks.3")
    assert SITE.row_keys() == ("blocks.1", "span-1", "span")


def test_a_span_of_one_block_is_its_delta():
    pattern = SpanPattern("blocks", "span", first=-1, last=1, inputs=("hidden",))
    (site,) = PatternAdapter(name="x", patterns=(pattern,)).sites(Toy(blocks=2))
    assert (site.path, site.last, site.paths) == ("blocks.1", "", ("blocks.1",))


def test_compiled_code_sees_what_every_block_does():
    made = timeline([(), (), (1.0,), LINE, ()])
    assert variants(SITE, made) == {
        "blocks.1": [STORE, STORE, REUSE, (FILL, 2), COMPUTE],
        "blocks.2": [COMPUTE, COMPUTE, REUSE, REUSE, COMPUTE],
        "blocks.3": [STORE, STORE, REUSE, REUSE, COMPUTE],
    }
    assert variants(SITE, made.keeping_all())["blocks.3"][-1] == STORE


@pytest.mark.parametrize(("first", "last"), [(1, 1 - 3), (0, 2), (-3, 1), (2, 1)])
def test_a_span_that_is_not_there_is_refused(first: int, last: int):
    pattern = SpanPattern("blocks", "span", first=first, last=last, inputs=("hidden",))
    with pytest.raises(AdapterError, match=f"2 blocks, so there is no span from {first} to {last}"):
        PatternAdapter(name="x", patterns=(pattern,)).sites(Toy(blocks=2))


def test_a_list_that_is_not_there_is_refused():
    pattern = SpanPattern("layers", "span", inputs=("hidden",))
    with pytest.raises(AdapterError, match=r"'x' found nothing at \['layers'\] in Toy"):
        PatternAdapter(name="x", patterns=(pattern,)).sites(Toy())


def test_spans_that_share_a_block_are_refused():
    other = SpanPattern("blocks", "other", first=3, last=4, inputs=("hidden",))
    with pytest.raises(AdapterError, match=r"'blocks.3' is found by more than one pattern"):
        PatternAdapter(name="x", patterns=(SPAN, other)).sites(Toy(blocks=5))


@pytest.mark.parametrize(
    ("path", "last"), [("a.3", "b.1"), ("a.3", "a.1"), ("a.1", "a.1"), ("a.x", "a.y")]
)
def test_a_span_of_other_paths_is_refused(path: str, last: str):
    with pytest.raises(AdapterError, match=f"not from '{path}' to '{last}'"):
        _ = Site(path=path, last=last, kind="x", block=0).paths


# ---------------------------------------------------------------------------- numbers


def test_a_span_by_hand():
    """Every block makes nine of one, but for the scale: 1 -> 9 -> 81 -> 729."""
    toy = Toy(blocks=3, width=2)
    toy.scale = 1.0
    x = torch.ones(1, 1, 2)
    pattern = SpanPattern("blocks", "span", first=1, last=2, inputs=("hidden",))
    adapter = PatternAdapter(name="x", patterns=(pattern,))
    with cached(toy, adapter, Schedule(evaluations=2, rows={"span": (1, 0)})):
        outputs = [toy(value * x, -value)[0, 0, 0].item() for value in (1, 2)]
    assert outputs == [729.0, 18.0 + (729.0 - 9.0)]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    row = [1, *draw(st.lists(st.integers(0, 1), min_size=N - 2, max_size=N - 2)), 0]
    drawn = {e: draw(st.sampled_from([(1.0,), (0.5,), LINE])) for e in range(N) if not row[e]}
    terms = {e: each for e, each in drawn.items() if len(each) <= sum(row[:e])}
    return Schedule(evaluations=N, rows={"span": row}, fills={"span": Fill(terms=terms)})


def by_hand(toy: Toy, schedule: Schedule, branches: Sequence[str]) -> list[Tensor]:
    """Sample by calling the blocks one by one."""
    past: dict[str, list[Tensor]] = {branch: [] for branch in branches}
    latent, outputs = noise(), []
    for evaluation in range(N):
        for number, branch in enumerate(branches):
            toy.journal.call += 1
            entered = toy.blocks[0](latent + number)
            if schedule.rows["span"][evaluation]:
                hidden = entered
                for block in toy.blocks[1:4]:
                    hidden = block(hidden)
                past[branch].insert(0, hidden - entered)
            else:
                terms = schedule.fills["span"].terms.get(evaluation, (1.0,))
                deltas = zip(terms, past[branch], strict=False)
                hidden = entered + sum(weight * delta for weight, delta in deltas)
            outputs.append(toy.blocks[4](hidden) * toy.scale)
        latent = latent - outputs[-1] / 4
    return outputs


@settings(max_examples=40)
@given(schedules(), st.sampled_from([("",), PAIR]))
def test_outputs_are_those_of_an_independent_implementation(
    schedule: Schedule, branches: tuple[str, ...]
):
    toy, reference = Toy(blocks=5), Toy(blocks=5)
    declared = branches if len(branches) > 1 else ()
    with cached(toy, ADAPTER, schedule, branches=declared) as stats:
        outputs = sample(toy, branches=branches)
    assert equal(outputs, by_hand(reference, schedule, branches))
    assert toy.journal.computed == reference.journal.computed
    reused = schedule.rows["span"].count(0) * len(branches)
    assert (stats.reused, stats.recomputed) == ({"blocks.1": reused}, 0)


class TwoStreams(nn.Module):
    """A block that changes its input in place and gives (text, hidden)."""

    def forward(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        before = hidden.clone()
        hidden += 2 * text
        return 3 * text + before, hidden


class TwoStreamed(nn.Module):
    """A denoiser that changes what its last block gave."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TwoStreams() for _ in range(3))

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        del timestep
        hidden, text = hidden_states.clone(), hidden_states + 1
        for block in self.blocks:
            text, hidden = block(hidden, text=text)
        total = text + hidden
        hidden.zero_()
        text.zero_()
        return total


def test_spans_of_several_streams_in_place():
    pattern = SpanPattern("blocks", "span", first=0, last=-1, inputs=("text", "hidden"))
    adapter = PatternAdapter(name="two", patterns=(pattern,))
    model = TwoStreamed()
    first = model(torch.ones(1, 2), 2.0)
    with cached(model, adapter, Schedule(evaluations=2, rows={"span": (1, 0)})):
        outputs = [model(torch.full((1, 2), value), -value) for value in (1.0, 5.0)]
    # 1 and 2 come in, so what is added is the output less 3; then 5 and 6 come in
    assert equal(outputs, [first, first - 3 + 11])


class OneTuple(nn.Module):
    """A block that gives a tuple of one, as blocks of diffusers may."""

    def forward(self, hidden: Tensor) -> tuple[Tensor]:
        return (2 * hidden,)


class OneTupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(OneTuple() for _ in range(3))

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        del timestep
        for block in self.blocks:
            hidden_states = block(hidden_states)[0]
        return hidden_states


def test_blocks_that_are_passed_keep_their_structure():
    pattern = SpanPattern("blocks", "span", first=0, last=-1, inputs=("hidden",))
    adapter = PatternAdapter(name="tuple", patterns=(pattern,))
    fills = {"span": Fill(terms={2: (0.5,)})}
    schedule = Schedule(evaluations=3, rows={"span": (1, 0, 0)}, fills=fills)
    model = OneTupled()
    with cached(model, adapter, schedule):
        outputs = [float(model(torch.tensor([value]), -value)) for value in (1.0, 2.0, 3.0)]
    assert outputs == [8.0, 2.0 + 7.0, 3.0 + 3.5]


# ---------------------------------------------------------------------------- the model


ROWS = Schedule(
    evaluations=N,
    rows={"span": (1, 1, 0, 1, 0, 0)},
    fills={"span": Fill(terms={2: LINE, 5: LINE})},
)


def test_all_compute_is_the_plain_model_bit_for_bit():
    toy = Toy(blocks=5)
    for parameter in toy.parameters():
        nn.init.normal_(parameter)
    plain, before = sample(toy), anatomy(toy)
    with pytest.warns(SmoothCacheWarning, match="computes everything"):
        attachment = attach(toy, ADAPTER, Schedule(evaluations=N, rows={"span": (1,) * N}))
    assert equal(sample(toy), plain)
    attachment.detach(quietly=True)
    with cached(toy, ADAPTER, ROWS):
        assert equal(sample(toy)[:2], plain[:2])
    assert anatomy(toy) == before
    assert equal(sample(toy), plain)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("block", [0, 2, 4])
def test_an_exception_leaves_nothing_behind(block: int):
    toy = Toy(blocks=5)
    before, calls = anatomy(toy), []

    def stop(*_: object) -> None:
        calls.append(0)
        if len(calls) == 2:
            raise Interrupted

    with cached(toy, ADAPTER, ROWS) as stats:
        expected = sample(toy)
        handle = toy.blocks[block].register_forward_pre_hook(stop)
        with pytest.raises(Interrupted):
            sample(toy)
        handle.remove()
        assert stats.bytes_held == 0
        assert equal(sample(toy), expected)
    assert anatomy(toy) == before


def test_a_span_whose_inputs_are_not_those_of_all_blocks_is_refused():
    toy = Toy(blocks=5)
    toy.blocks[3] = nn.Identity()
    before = anatomy(toy)
    with pytest.raises(AttachError, match=r"blocks.3: a delta needs .* Identity.forward takes"):
        attach(toy, ADAPTER, ROWS)
    assert anatomy(toy) == before


def test_a_block_that_is_not_called_is_an_error():
    toy = Toy(blocks=5)
    attachment = attach(toy, ADAPTER, ROWS)
    skipped = toy.blocks[2]
    vars(skipped)["forward"] = lambda hidden: hidden  # as a hook that bypasses the cache
    with pytest.raises(AttachError, match=r"'blocks.1' was not called in evaluation 0"):
        sample(toy)
    del vars(skipped)["forward"]
    attachment.detach(quietly=True)


@pytest.mark.parametrize("key", ["blocks.2.attn", "ff-3", "attn"])
def test_a_span_and_a_site_inside_are_refused(key: str):
    patterns = (SPAN, SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.ff", "ff"))
    adapter = PatternAdapter(name="both", patterns=patterns)
    toy = Toy(blocks=5)
    schedule = Schedule(evaluations=2, rows={"span": (1, 0), key: (1, 0)})
    with pytest.raises(ScheduleError, match=r"is inside 'blocks.1'; a schedule may skip only one"):
        attach(toy, adapter, schedule)
    outside = Schedule(
        evaluations=N, rows={"span": ROWS.rows["span"], "attn-4": (1, 1, 0, 1, 0, 0)}
    )
    with cached(toy, adapter, outside) as stats:
        sample(toy)
    assert stats.reused == {"blocks.1": 3, "blocks.4.attn": 3}


class Counting(ModelHook):
    calls = 0

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        del module
        self.calls += 1
        return args, kwargs


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("first", ["hook", "cache"])
def test_spans_work_with_hooks_of_accelerate(block: int, first: str):
    toy, plain, hook = Toy(blocks=5), Toy(blocks=5), Counting()
    with cached(plain, ADAPTER, ROWS):
        expected = sample(plain)
    if first == "hook":
        add_hook_to_module(toy.blocks[block], hook)
    with cached(toy, ADAPTER, ROWS):
        if first == "cache":
            add_hook_to_module(toy.blocks[block], hook)
        assert equal(sample(toy), expected)
    remove_hook_from_module(toy.blocks[block])
    assert hook.calls >= 3
    assert not any("smoothcache" in name for module in toy.modules() for name in vars(module))


# ---------------------------------------------------------------------------- measuring


def calibrated(toy: Toy, adapter: PatternAdapter) -> Calibration:
    sampler = silent(toy, lambda _: sample(toy), adapter=adapter)
    return calibrate(sampler, seeds=[0], max_lag=3, sensitivity=0, progress=False)


@torch.no_grad()
def test_calibration_measures_the_delta_of_a_span():
    toy, entered, left = Toy(blocks=5), [], []
    before = anatomy(toy)
    errors = calibrated(toy, ADAPTER).mean()[0, 0, 0]
    assert anatomy(toy) == before
    toy.blocks[1].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    toy.blocks[3].register_forward_hook(lambda *call: left.append(call[2]))
    sample(toy)
    deltas = [output - hidden for output, hidden in zip(left, entered, strict=True)]
    for number, (earlier, later) in enumerate(pairwise(deltas)):
        expected = float((earlier - later).abs().sum() / later.abs().sum())
        assert errors[number] == pytest.approx(expected)


def test_a_span_costs_what_its_blocks_cost():
    patterns = (SitePattern("blocks.[123].attn", "attn"), SitePattern("blocks.[123].ff", "ff"))
    inside = PatternAdapter(name="inside", patterns=patterns)
    spans = calibrated(Toy(blocks=5), ADAPTER).cost
    apart = calibrated(Toy(blocks=5), inside).cost
    assert spans.sites[0].macs == sum(site.macs for site in apart.sites)
    assert spans.sites[0].bytes == apart.sites[0].bytes
    assert spans.total == apart.total


@settings(max_examples=20)
@given(schedules(), st.sampled_from([("",), PAIR]))
def test_predicted_bytes_are_those_of_a_run(schedule: Schedule, branches: tuple[str, ...]):
    toy, declared = Toy(blocks=5), branches if len(branches) > 1 else ()
    size = len(branches) * noise().numel() * 4
    site = SiteCost(path="blocks.1", kind="span", block=1, macs=1, bytes=size)
    with cached(toy, ADAPTER, schedule, branches=declared) as stats:
        sample(toy, branches=branches)
    assert stats.bytes_peak == schedule.predicted_bytes(Cost(total=1, sites=(site,)))
    assert stats.bytes_held == 0


# ---------------------------------------------------------------------------- a real model


def dit() -> DiTTransformer2DModel:
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=4, sample_size=4
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def evaluate(model: nn.Module, evaluation: int) -> Tensor:
    latent = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(evaluation))
    timestep, labels = torch.tensor([900 - 100 * evaluation] * 2), torch.tensor([1, 2])
    return model(latent, timestep, class_labels=labels).sample


@torch.no_grad()
def test_a_span_of_a_real_model_equals_computing_by_hand():
    """By hand: everything is computed, then the output of the last block is replaced."""
    model, entered, kept = dit(), [], []
    pattern = SpanPattern("transformer_blocks", "span", inputs=("hidden_states",))
    adapter = PatternAdapter(name="dit", patterns=(pattern,))
    plain, before = [evaluate(model, evaluation) for evaluation in range(4)], anatomy(model)

    def replace(*call: Any) -> Tensor | None:
        if len(entered) in (1, 2):
            kept.insert(0, call[2] - entered[-1])
            return None
        delta = kept[0] if len(entered) == 3 else 2.0 * kept[0] - 1.0 * kept[1]
        return entered[-1] + delta

    first, last = model.transformer_blocks[1], model.transformer_blocks[3]
    handles = [
        first.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].clone())),
        last.register_forward_hook(replace),
    ]
    expected = [evaluate(model, evaluation) for evaluation in range(4)]
    for handle in handles:
        handle.remove()
    fills = {"span": Fill(terms={3: LINE})}
    schedule = Schedule(evaluations=4, rows={"span": (1, 1, 0, 0)}, fills=fills)
    with cached(model, adapter, schedule):
        outputs = [evaluate(model, evaluation) for evaluation in range(4)]
    assert equal(outputs, expected)
    assert equal(outputs[:2], plain[:2])
    assert not torch.allclose(outputs[3], plain[3])
    assert anatomy(model) == before
    assert equal([evaluate(model, evaluation) for evaluation in range(4)], plain)
