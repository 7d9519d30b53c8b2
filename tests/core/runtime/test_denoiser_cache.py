"""Rows of the whole model: skipped evaluations, and skipped unconditional passes."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from hypothesis import given, settings, strategies as st
from kit.helpers import ADAPTER, STEPS, NoWaiting, Toy, anatomy
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    attach,
    cached,
)
from smoothcache_core.adapters.sites import Guidance
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.outputs.structures import flatten
from smoothcache_core.schedule import Cost, Fill
from torch import Tensor, nn

N = len(STEPS)
PAIR = ("cond", "uncond")
LINE = (2.0, -1.0)
MANY = 10**6


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STRUCTURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda one, _: one,
    "tuple": lambda one, other: (one, other),
    "list": lambda one, other: [one, other],
    "dictionary": lambda one, other: {"sample": one, "extra": [other]},
    "output class": lambda one, _: Transformer2DModelOutput(sample=one),
    "output class in a tuple": lambda one, other: (Transformer2DModelOutput(sample=one), other),
}


class Interrupted(Exception):
    pass


class Plain(nn.Module):
    """A denoiser whose arithmetic is the same for every row, whatever the batch.

    Attributes:
        calls: The rows of every call.
    """

    def __init__(self, build: Callable[[Tensor, Tensor], Any], channels: int = 4) -> None:
        super().__init__()
        self.site = nn.Identity()
        self.build = build
        self.channels = channels
        self.calls: list[int] = []
        self.limit = MANY

    def forward(self, hidden_states: Tensor, timestep: float, labels: Tensor) -> Any:
        if len(self.calls) == self.limit:
            raise Interrupted
        self.calls.append(len(hidden_states))
        output = hidden_states * hidden_states * 0.125 + labels[:, None] * 0.5 - timestep * 0.01
        repeated = torch.cat((output, output * 0.5), dim=1)[:, : self.channels]
        return self.build(repeated, output[:, 0])


class Announcing(Plain):
    """Has the method by which diffusers' pipelines announce their passes."""

    @contextmanager
    def cache_context(self, name: str) -> Generator[None]:
        del name
        yield


def first(output: Any) -> Tensor:
    return flatten(output).floating[0]


@dataclass(frozen=True)
class Way:
    """How guidance is done: two halves of a batch, or two calls."""

    order: Guidance | None = None
    branches: tuple[str, ...] = ()
    announced: bool = False

    @property
    def adapter(self) -> PatternAdapter:
        sites = (SitePattern("site", "site"),)
        return PatternAdapter(name="plain", patterns=sites, guidance=self.order)

    def model(self, structure: str = "tuple", channels: int = 4) -> Plain:
        """Return a denoiser that is guided this way."""
        return (Announcing if self.announced else Plain)(STRUCTURES[structure], channels)

    def sample(self, model: Any) -> list[tuple[Tensor, Tensor]]:
        """Sample; return (conditional, unconditional) output of every evaluation."""
        latent, outputs = numbers(2, 4), []
        for step in STEPS:
            outputs.append(self.evaluate(model, latent, step))
            guided = outputs[-1][1] + 2 * (outputs[-1][0] - outputs[-1][1])
            latent = latent - 0.1 * guided[:, :4]
        return outputs

    def evaluate(self, model: Any, latent: Tensor, step: float) -> tuple[Tensor, Tensor]:
        if self.order is None:
            given = []
            for label, branch in ((1.0, "cond"), (-1.0, "uncond")):
                context: AbstractContextManager[None] = nullcontext()
                if self.announced:
                    context = model.cache_context(branch)
                with context:
                    given.append(first(model(latent, step, torch.full((2,), label))).clone())
            return given[0], given[1]
        labels = torch.tensor([1.0, 1.0, -1.0, -1.0])
        if self.order == "uncond-first":
            labels = -labels
        output = first(model(torch.cat((latent, latent)), step, labels))
        one, other = output.clone().chunk(2)
        output.zero_()  # the caller may change what it was given
        return (one, other) if self.order == "cond-first" else (other, one)


WAYS = {
    "conditional first": Way("cond-first"),
    "unconditional first": Way("uncond-first"),
    "declared branches": Way(branches=PAIR),
    "announced branches": Way(announced=True),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def expected_of(schedule: Schedule, channels: int) -> list[tuple[Tensor, Tensor]]:
    """Sample by an implementation that shares nothing with the library."""
    model = Plain(lambda one, _: one, channels)
    past: list[list[Tensor]] = [[], []]
    apart: list[Tensor] = []
    latent, outputs = numbers(2, 4), []
    anchor = latent
    everything = (1,) * N
    for evaluation, step in enumerate(STEPS):
        called = schedule.rows.get("denoiser", everything)[evaluation]
        both = schedule.rows.get("guidance", everything)[evaluation]
        fills = {key: schedule.fills.get(key, Fill(terms={})) for key in ("denoiser", "guidance")}
        terms = {key: fill.terms.get(evaluation, (1.0,)) for key, fill in fills.items()}
        if called:
            anchor = latent
            now = [model(latent, step, torch.full((2,), label)) for label in (1.0, -1.0)]
            if both:
                apart.insert(0, now[0] - now[1])
            else:
                now[1] = now[0]
                for weight, each in zip(terms["guidance"], apart, strict=False):
                    now[1] = now[1] - weight * each
            past[0].insert(0, now[0])
            past[1].insert(0, now[1])
            corrected = schedule.corrected or Fill(terms={})
            if evaluation in corrected.terms:
                now = [mixed(corrected, evaluation, each, latent, anchor) for each in past]
        else:
            fill = fills["denoiser"]
            now = [mixed(fill, evaluation, each, latent, anchor) for each in past]
        outputs.append((now[0], now[1]))
        latent = latent - 0.1 * (now[1] + 2 * (now[0] - now[1]))[:, :4]
    return outputs


def mixed(
    fill: Fill, evaluation: int, past: Sequence[Tensor], latent: Tensor, anchor: Tensor
) -> Tensor:
    """Return what a fill makes of outputs, the newest first, and of the latents."""
    terms = fill.terms.get(evaluation, (1.0,))
    total = sum(weight * output for weight, output in zip(terms, past, strict=False))
    assert isinstance(total, Tensor)
    near = total[:, :4] + fill.inputs.get(evaluation, 0.0) * latent
    near = near + fill.anchors.get(evaluation, 0.0) * anchor
    return torch.cat((near, total[:, 4:]), dim=1)


def close(one: Sequence[tuple[Tensor, ...]], other: Sequence[tuple[Tensor, ...]]) -> None:
    torch.testing.assert_close([*one], [*other], rtol=0, atol=0)


def rows_of_the_model(draw: st.DrawFn) -> dict[str, list[int]]:
    row = st.lists(st.integers(0, 1), min_size=N - 1, max_size=N - 1)
    keys = draw(st.sampled_from([("denoiser",), ("guidance",), ("denoiser", "guidance")]))
    rows = {key: [1, *draw(row)] for key in keys}
    rows[keys[0]][-1] = 0
    return rows


ANCHORED = st.booleans()


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    rows = rows_of_the_model(draw)
    weights = st.sampled_from([(1.0,), (0.7,), LINE, (1.1, 0.2), (2.5, -2.1, 0.6)])
    computed = {"denoiser": rows.get("denoiser", [1] * N)}
    both = zip(computed["denoiser"], rows.get("guidance", [1] * N), strict=True)
    computed["guidance"] = [int(one and other) for one, other in both]
    fills: dict[str, Fill] = {}
    for key, row in rows.items():
        terms = {}
        for evaluation in range(1, N):
            drawn = draw(weights)
            if not row[evaluation] and len(drawn) <= sum(computed[key][:evaluation]):
                terms[evaluation] = drawn
        skipped = [e for e in terms if key == "denoiser"]
        inputs = {e: draw(st.sampled_from([0.0, 0.4, -1.3])) for e in skipped}
        anchors = {e: draw(st.sampled_from([0.0, -0.6])) for e in skipped} if draw(ANCHORED) else {}
        fills[key] = Fill(terms=terms, inputs=inputs, anchors=anchors)
    corrected = draw(corrections(computed["denoiser"])) if draw(st.booleans()) else None
    return Schedule(evaluations=N, rows=rows, fills=fills, corrected=corrected)


@st.composite
def corrections(draw: st.DrawFn, row: Sequence[int]) -> Fill:
    """Draw what the solver gets in place of computed outputs."""
    weights = st.sampled_from([(), (0.9,), (1.2, -0.3), (1.5, -0.9, 0.3)])
    drawn = {e: draw(weights) for e, computed in enumerate(row) if computed}
    terms = {e: each for e, each in drawn.items() if each and len(each) <= 1 + sum(row[:e])}
    inputs = {e: draw(st.sampled_from([0.0, 0.2])) for e in terms}
    return Fill(terms=terms, inputs=inputs)


@settings(max_examples=60)
@given(
    schedules(), st.sampled_from([*WAYS]), st.sampled_from([*STRUCTURES]), st.sampled_from([4, 6])
)
def test_runs_are_those_of_an_independent_implementation(
    schedule: Schedule, way: str, structure: str, channels: int
):
    chosen = WAYS[way]
    model = chosen.model(structure, channels)
    size = flatten(model(numbers(4, 4), 0.0, torch.ones(4))).bytes
    cost = Cost(total=1, sites=(), output_bytes=size)
    with cached(model, chosen.adapter, schedule, branches=chosen.branches) as stats:
        outputs = chosen.sample(model)
        calls, model.calls = model.calls[1:], []
        again = chosen.sample(model)
    close(outputs, expected_of(schedule, channels))
    close(again, outputs)
    assert model.calls == calls
    called = schedule.rows.get("denoiser", (1,) * N)
    guided = schedule.rows.get("guidance", (1,) * N)
    passes = sum(one + (one and other) for one, other in zip(called, guided, strict=True))
    assert sum(calls) == 2 * passes
    assert stats.recomputed == 0
    calls_of_an_evaluation = 1 if chosen.order else 2
    corrected = schedule.corrected.terms if schedule.corrected else {}
    assert stats.corrected == 2 * len(corrected) * calls_of_an_evaluation
    predicted = schedule.predicted_bytes(cost)
    anchored = any(fill.anchors for fill in schedule.fills.values())
    assert predicted / (2 if anchored else 1) <= stats.bytes_peak <= predicted
    assert stats.bytes_held == 0


def whole(fills: dict[str, Fill] | None = None, **rows: Sequence[int]) -> Schedule:
    return Schedule(evaluations=len(next(iter(rows.values()))), rows=rows, fills=fills or {})


@every_way
def test_all_compute_is_the_plain_model_and_leaves_nothing_behind(way: Way):
    model = way.model()
    outputs, before = way.sample(model), anatomy(model)
    everything = whole(denoiser=(1,) * N, guidance=(1,) * N)
    with pytest.warns(SmoothCacheWarning, match="computes everything"):
        attachment = attach(model, way.adapter, everything, branches=way.branches)
    close(way.sample(model), outputs)
    attachment.detach(quietly=True)
    assert anatomy(model) == before


def test_a_run_that_computes_everything_can_be_corrected():
    """No warning says that nothing is gained, and the outputs that are kept are counted."""
    way = WAYS["conditional first"]
    model = way.model()
    corrected = Fill(terms={e: (1.4, -0.4)[: e + 1] for e in range(N)}, inputs={0: 0.1})
    schedule = whole(denoiser=(1,) * N).changed(corrected=corrected)
    before = anatomy(model)
    with cached(model, way.adapter, schedule) as stats:
        close(way.sample(model), expected_of(schedule, 4))
    assert (stats.corrected, stats.computed, stats.bytes_held) == (N, {}, 0)
    assert anatomy(model) == before


GUIDED = WAYS["conditional first"]
LABELS = torch.tensor([1.0, 1.0, -1.0, -1.0])


@pytest.mark.parametrize(
    ("model", "adapter", "key", "conditions"),
    [
        (Toy, ADAPTER, "ff", ()),
        (GUIDED.model, GUIDED.adapter, "guidance", (LABELS,)),
    ],
    ids=["sites", "guidance"],
)
def test_what_sites_and_guidance_make_is_corrected(
    model: Callable[[], Any], adapter: PatternAdapter, key: str, conditions: tuple[Tensor, ...]
):
    plain = Schedule(evaluations=N, rows={key: (1, 0, 1, 0, 1, 0)})
    schedule = plain.changed(corrected=Fill(terms={1: (0.5, 0.5), 3: (1.0, -0.5, 0.25)}))
    latent, found = numbers(2, 3, 4) if key == "ff" else numbers(2, 4).repeat(2, 1), []
    for each in (plain, schedule):
        denoiser = model()
        with cached(denoiser, adapter, each), torch.no_grad():
            outputs = [denoiser(latent * (1 + step), step, *conditions) for step in STEPS]
        found.append([first(output) for output in outputs])
    raw, made = found
    torch.testing.assert_close(made[1], 0.5 * raw[1] + 0.5 * raw[0], rtol=0, atol=0)
    last = raw[3] - 0.5 * raw[2] + 0.25 * raw[1]
    torch.testing.assert_close(made[3], last, rtol=0, atol=0)
    assert all(torch.equal(made[e], raw[e]) for e in (0, 2, 4, 5))


def test_an_output_whose_predecessors_are_lost_is_not_corrected_and_that_is_told():
    model, way = Way().model(), Way()
    corrected = Fill(terms={1: (1.5, -0.5), 3: (1.5, -0.5)})
    schedule = whole(denoiser=(1,) * N).changed(corrected=corrected)
    with cached(model, way.adapter, schedule) as stats:
        for evaluation, step in enumerate(STEPS):
            rows = 2 if evaluation < 3 else 4
            given = numbers(rows, 4), step, torch.ones(rows)
            if evaluation != 3:
                model(*given)
                continue
            with pytest.warns(SmoothCacheWarning, match="evaluation 3 is not corrected"):
                output = model(*given)
            assert torch.equal(first(output), first(Way().model()(*given)))
    assert stats.corrected == 1


def test_gradients_through_earlier_outputs_are_refused():
    model, way = Way().model(), Way()
    corrected = Fill(terms={1: (1.5, -0.5)})
    schedule = whole(denoiser=(1,) * N).changed(corrected=corrected)
    latent = numbers(2, 4).requires_grad_()
    with torch.enable_grad(), cached(model, way.adapter, schedule):
        model(latent, STEPS[0], torch.ones(2))
        with pytest.raises(AttachError, match="gradients are enabled"):
            model(latent, STEPS[1], torch.ones(2))


@every_way
def test_statistics_count_the_whole_model(way: Way):
    model, passes = way.model(), 1 if way.order else 2
    schedule = whole(denoiser=(1, 1, 0, 1, 0, 0), guidance=(1, 0, 0, 0, 1, 1))
    with cached(model, way.adapter, schedule, branches=way.branches) as stats:
        way.sample(model)
    # three evaluations are computed, two of them without their unconditional pass
    computed = 3 if way.order else 3 + 1
    assert stats.computed == {"denoiser": computed, "guidance": 1}
    assert stats.reused == {"denoiser": 3 * passes, "guidance": 2}
    assert (stats.runs, stats.evaluations, stats.recomputed) == (1, N * passes, 0)


@every_way
def test_an_exception_leaves_nothing_behind(way: Way):
    model = way.model()
    before = anatomy(model)
    schedule = whole(denoiser=(1, 1, 0, 1, 0, 1), guidance=(1, 0, 0, 0, 0, 0))
    with cached(model, way.adapter, schedule, branches=way.branches) as stats:
        outputs = way.sample(model)
        model.limit = len(model.calls) + 2
        with pytest.raises(Interrupted):
            way.sample(model)
        assert stats.bytes_held == 0
        model.limit = MANY
        close(way.sample(model), outputs)
    assert anatomy(model) == before


def test_a_buffer_that_the_model_uses_again_is_copied():
    """As the outputs of CUDA graphs are."""
    way, buffer = WAYS["conditional first"], torch.empty(4, 4)
    model = Plain(lambda one, _: buffer.copy_(one))
    schedule = whole({"denoiser": Fill(terms={2: LINE})}, denoiser=(1, 1, 0, 1, 0, 1))
    with cached(model, way.adapter, schedule):
        close(way.sample(model), expected_of(schedule, 4))


def test_what_is_missing_is_computed_and_counted():
    """The batch changes at evaluation 3; the fill of 4 needs 1 and 3, that of 5 has latents too."""
    model, way = Way().model(), Way()
    fill = Fill(terms={2: (0.5,), 4: LINE, 5: (1.0,)}, inputs={5: 0.5})
    schedule = whole({"denoiser": fill}, denoiser=(1, 1, 0, 1, 0, 0))
    with cached(model, way.adapter, schedule) as stats:
        for evaluation, step in enumerate(STEPS):
            rows = 2 if evaluation < 3 else 4
            model(numbers(rows, 4), step, torch.ones(rows))
    assert model.calls == [2, 2, 4, 4, 4]
    assert stats.recomputed == 2


def test_guidance_that_is_missing_is_computed_and_counted():
    way = WAYS["conditional first"]
    model = way.model()
    with cached(model, way.adapter, whole(guidance=(1, 1, 0, 0, 0, 1))) as stats:
        for evaluation, step in enumerate(STEPS):
            rows = 2 if evaluation < 3 else 4
            model(numbers(rows // 2, 4).repeat(2, 1), step, torch.ones(rows))
    assert model.calls == [2, 2, 1, 4, 2, 4]
    assert stats.recomputed == 1


@every_way
def test_nothing_waits_for_the_device(way: Way):
    model = way.model()
    fills = {
        "denoiser": Fill(terms={2: LINE}, inputs={2: 0.5}),
        "guidance": Fill(terms={4: (0.5,)}),
    }
    schedule = whole(fills, denoiser=(1, 1, 0, 1, 1, 1), guidance=(1, 1, 0, 1, 0, 1))
    with cached(model, way.adapter, schedule, branches=way.branches) as stats, NoWaiting():
        way.sample(model)
    assert sum(stats.reused.values()) > 0


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ((), "adapter 'plain' does not say which half of a batch is conditional, and no branches"),
        (("one", "two"), r"one branch must be the conditional one .* got \('one', 'two'\)"),
        (("uncond", "negative"), "one branch must be the conditional one"),
    ],
)
def test_guidance_that_cannot_be_told_is_refused(branches: tuple[str, ...], message: str):
    model = Way().model()
    before = anatomy(model)
    with pytest.raises(ScheduleError, match=message):
        attach(model, Way().adapter, whole(guidance=(1, 0)), branches=branches)
    assert anatomy(model) == before


def test_guidance_of_an_unknown_order_that_nobody_announces_is_refused():
    way = WAYS["announced branches"]
    model = way.model()
    attachment = attach(model, way.adapter, whole(guidance=(1, 0)))
    with pytest.raises(ScheduleError, match="and this call is of no named branch"):
        model(numbers(4, 4), 1.0, torch.ones(4))
    attachment.detach(quietly=True)


def test_an_unconditional_pass_that_comes_first_is_refused():
    way = Way(branches=PAIR[::-1])
    model = way.model()
    attachment = attach(model, way.adapter, whole(guidance=(1, 0)), branches=way.branches)
    with pytest.raises(ScheduleError, match="evaluation 0: the pass 'uncond' came before the cond"):
        way.sample(model)
    attachment.detach(quietly=True)


def test_an_unconditional_pass_alone_is_refused():
    """The conditional pass of the evaluation before must not stand in."""
    way = WAYS["announced branches"]
    model = way.model()
    attachment = attach(model, way.adapter, whole(guidance=(1, 0, 1)))
    way.evaluate(model, numbers(2, 4), 3.0)
    with (
        pytest.raises(ScheduleError, match="evaluation 1: the pass 'uncond' came before the cond"),
        model.cache_context("uncond"),  # pyright: ignore[reportCallIssue] torch's stub types attributes as tensors
    ):
        model(numbers(2, 4), 2.0, torch.ones(2))
    attachment.detach(quietly=True)


def test_a_batch_of_both_passes_that_is_announced_is_a_batch():
    """diffusers' CogVideoX and LTX call it `cond_uncond`."""
    way = Way("uncond-first")
    model = Announcing(STRUCTURES["tensor"])
    schedule = whole(guidance=(1, 0, 1, 1, 0, 0))
    with cached(model, way.adapter, schedule), model.cache_context("cond_uncond"):
        close(way.sample(model), expected_of(schedule, 4))
    assert model.calls == [4, 2, 4, 4, 2, 2]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["cond-first", "uncond-first"])
def test_a_batch_that_is_not_guided_is_computed_and_told(rows: int, order: Guidance):
    """Two samples without guidance are no two halves, though there are two rows."""
    way = Way(order=order)
    model = way.model("tensor")
    labels = torch.arange(float(rows))
    with (
        pytest.warns(SmoothCacheWarning, match="guidance is off in this run"),
        cached(model, way.adapter, whole(guidance=(1, 0, 0, 1))) as stats,
    ):
        outputs = [model(numbers(rows, 4, seed=step), 1.0 - step, labels) for step in range(4)]
    assert model.calls == [rows] * 4
    assert stats.recomputed == 2
    plain = way.model("tensor")
    for step, output in enumerate(outputs):
        assert torch.equal(output, plain(numbers(rows, 4, seed=step), 1.0 - step, labels))


def test_samples_that_begin_with_one_noise_are_no_guided_batch():
    """Two prompts of one seed without guidance: their latents part after the first evaluation."""
    way, labels = WAYS["conditional first"], torch.tensor([3.0, 5.0])

    def run(model: Plain) -> Tensor:
        latent = numbers(1, 4).repeat(2, 1)
        for step in STEPS:
            latent = latent - model(latent, step, labels) / 8
        return latent

    plain = run(way.model("tensor"))
    model = way.model("tensor")
    with (
        pytest.warns(SmoothCacheWarning, match="guidance is off in this run"),
        cached(model, way.adapter, whole(guidance=(1, 0) * 3)),
    ):
        assert torch.equal(run(model), plain)


def test_guidance_that_ends_in_a_run_is_followed():
    """The batch is no longer doubled; its rows happen to be as many."""
    way = WAYS["conditional first"]
    model = way.model("tensor")
    latents = [numbers(2, 4).repeat(2, 1)] * 3 + [numbers(6, 4)] * 3

    def run() -> None:
        for latent, step in zip(latents, STEPS, strict=True):
            model(latent, step, torch.ones(len(latent)))

    with (
        pytest.warns(SmoothCacheWarning, match="guidance is off in this run"),
        cached(model, way.adapter, whole(guidance=(1, 0, 1, 0, 0, 0))) as stats,
    ):
        run()
    assert model.calls == [4, 2, 4, 6, 6, 6]
    assert stats.recomputed == 3


def test_a_fill_that_the_other_row_starves_is_refused():
    """The difference of evaluation 1 is never there, for the denoiser is not called."""
    fills = {"guidance": Fill(terms={2: LINE})}
    with pytest.raises(ScheduleError, match="'guidance' has 2 terms at evaluation 2, but only 1"):
        whole(fills, denoiser=(1, 0, 1, 1), guidance=(1, 1, 0, 1))


def test_an_output_of_no_numbers_is_refused():
    model = Plain(lambda one, _: str(one))
    attachment = attach(model, Way().adapter, whole(denoiser=(1, 0)))
    with pytest.raises(AttachError, match="gives a str in which there is no floating-point tensor"):
        model(numbers(2, 4), 1.0, torch.ones(2))
    attachment.detach(quietly=True)


def test_inputs_that_do_not_match_are_refused_when_they_are_needed():
    model = Plain(lambda one, _: one[:, :3])
    schedule = whole({"denoiser": Fill(terms={}, inputs={1: 0.5})}, denoiser=(1, 0))
    attachment = attach(model, Way().adapter, schedule)
    model(numbers(2, 4), 2.0, torch.ones(2))
    with pytest.raises(ScheduleError, match="does not match the denoiser's output"):
        model(numbers(2, 4), 1.0, torch.ones(2))
    attachment.detach(quietly=True)
