"""Schedules that skip unconditional passes and sites: what sites give in the pass that is left."""

import json
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings, strategies as st
from kit.helpers import NoWaiting, anatomy
from smoothcache_core import (
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    cached,
    fit,
)
from smoothcache_core.adapters.sites import Guidance
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Cost, Fill, SiteCost, Storage
from torch import Tensor, nn

STEPS = (9.0, 7.0, 5.0, 4.0, 2.0, 1.0)
N = len(STEPS)
LINE = (2.0, -1.0)
SIZE = 8 * 2 * 2 * 4  # bytes of what a site gives for both passes


class Part(nn.Module):
    """Mixes what it is given with a label; `frames` rows of it for each row of the batch."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.calls: list[int] = []

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        self.calls.append(len(hidden))
        return hidden * self.scale + hidden * labels.repeat_interleave(2)[:, None] * 0.25


class Model(nn.Module):
    """Two parts in turn, on two frames of every row."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.own = Part(0.5), Part(-0.25)
        self.limit = 10**6

    def forward(self, hidden_states: Tensor, timestep: float, labels: Tensor) -> Tensor:
        if len(self.cross.calls) == self.limit:
            raise RuntimeError("interrupted")
        hidden = torch.cat((hidden_states, hidden_states * timestep), dim=1).view(-1, 4)
        hidden = hidden + self.cross(hidden, labels)
        hidden = hidden + self.own(hidden, labels)
        return hidden.view(len(hidden_states), -1)[:, :4]


class Announcing(Model):
    """Has the method by which diffusers' pipelines announce their passes."""

    @contextmanager
    def cache_context(self, name: str) -> Generator[None]:
        del name
        yield


@dataclass(frozen=True)
class Way:
    """How guidance is done: two halves of a batch, or two calls."""

    order: Guidance | None = None
    branches: tuple[str, ...] = ()
    announced: bool = False

    @property
    def adapter(self) -> PatternAdapter:
        sites = (SitePattern("cross", "cross"), SitePattern("own", "own"))
        return PatternAdapter(name="parts", patterns=sites, guidance=self.order)

    def model(self) -> Model:
        return (Announcing if self.announced else Model)()

    def cached(self, model: Any, schedule: Schedule, **settings: Any) -> Any:
        return cached(model, self.adapter, schedule, branches=self.branches, **settings)

    def sample(self, model: Any, latent: Tensor | None = None) -> Tensor:
        latent = noise() if latent is None else latent
        for step in STEPS:
            one, other = self.evaluate(model, latent, step)
            latent = latent - 0.1 * (other + 2 * (one - other))
        return latent

    def evaluate(self, model: Any, latent: Tensor, step: float) -> tuple[Tensor, Tensor]:
        if self.order is None:
            given = []
            for label, branch in ((1.0, "cond"), (-1.0, "uncond")):
                context: AbstractContextManager[None] = nullcontext()
                if self.announced:
                    context = model.cache_context(branch)
                with context:
                    given.append(model(latent, step, torch.full((2,), label)))
            return given[0], given[1]
        labels = torch.tensor([1.0, 1.0, -1.0, -1.0])
        labels = labels if self.order == "cond-first" else -labels
        one, other = model(torch.cat((latent, latent)), step, labels).chunk(2)
        return (one, other) if self.order == "cond-first" else (other, one)


WAYS = {
    "conditional first": Way("cond-first"),
    "unconditional first": Way("uncond-first"),
    "declared branches": Way(branches=("cond", "uncond")),
    "announced branches": Way(announced=True),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def noise() -> Tensor:
    return torch.randn((2, 4), generator=torch.Generator().manual_seed(0))


def expected_of(schedule: Schedule) -> Tensor:
    """Sample by an implementation that shares nothing with the library."""
    parts = {"cross": Part(0.5), "own": Part(-0.25)}
    past: dict[str, dict[int, dict[float, Tensor]]] = {key: {} for key in parts}
    apart: list[Tensor] = []
    everything, latent = (1,) * N, noise()

    def given(key: str, evaluation: int, label: float, hidden: Tensor) -> Tensor:
        if schedule.rows.get(key, everything)[evaluation]:
            output = parts[key](hidden, torch.full((2,), label))
            past[key].setdefault(evaluation, {})[label] = output
            return output
        fill = schedule.fills.get(key, Fill(terms={}))
        weights = fill.terms.get(evaluation, (1.0,))
        newest = sorted((each for each in past[key] if each < evaluation), reverse=True)
        total = torch.zeros_like(hidden)
        for weight, source in zip(weights, newest, strict=False):
            passes = past[key][source]
            alone = not schedule.rows.get("guidance", everything)[evaluation]
            mean = alone and fill.passes == "mean" and len(passes) == 2
            kept = sum(passes.values()) / 2 if mean else passes[label]
            total = total + weight * kept
        return total

    for evaluation, step in enumerate(STEPS):
        both = schedule.rows.get("guidance", everything)[evaluation]
        now: dict[float, Tensor] = {}
        for label in (1.0, -1.0) if both else (1.0,):
            hidden = torch.cat((latent, latent * step), dim=1).view(-1, 4)
            hidden = hidden + given("cross", evaluation, label, hidden)
            hidden = hidden + given("own", evaluation, label, hidden)
            now[label] = hidden.view(2, -1)[:, :4]
        if both:
            apart.insert(0, now[1.0] - now[-1.0])
        else:
            fill = schedule.fills.get("guidance", Fill(terms={}))
            weights = fill.terms.get(evaluation, (1.0,))
            pairs = zip(weights, apart, strict=False)
            now[-1.0] = now[1.0] - torch.stack([weight * each for weight, each in pairs]).sum(0)
        latent = latent - 0.1 * (now[-1.0] + 2 * (now[1.0] - now[-1.0]))
    return latent


def is_possible(rows: dict[str, list[int]], key: str, evaluation: int, terms: int) -> bool:
    done = [each for each in range(evaluation) if rows[key][each]][-terms:]
    legal = not rows["guidance"][evaluation] or all(rows["guidance"][each] for each in done)
    return len(done) == terms and legal


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    row = st.lists(st.integers(0, 1), min_size=N - 1, max_size=N - 1)
    rows = {key: [1, *draw(row)] for key in ("guidance", "cross", "own")}
    rows["guidance"][draw(st.integers(1, N - 1))] = 0
    fills: dict[str, Fill] = {}
    for key in ("cross", "own"):
        terms: dict[int, Any] = {}
        for evaluation in range(1, N):
            drawn = draw(st.sampled_from([(1.0,), (0.7,), LINE]))
            if not rows[key][evaluation] and is_possible(rows, key, evaluation, len(drawn)):
                terms[evaluation] = drawn
            elif not is_possible(rows, key, evaluation, 1):
                rows[key][evaluation] = 1
        means: tuple[Literal["mean"] | None, ...] = (None, "mean")
        fills[key] = Fill(terms=terms, passes=draw(st.sampled_from(means)))
    skipped = [evaluation for evaluation in range(N) if not rows["guidance"][evaluation]]
    weights = {
        evaluation: draw(st.sampled_from([(0.0,), (1.0,), (0.8,)])) for evaluation in skipped
    }
    fills["guidance"] = Fill(terms=weights)
    fills = {key: fill for key, fill in fills.items() if 0 in rows[key]}
    return Schedule(evaluations=N, rows=rows, fills=fills, cost=COST)


COST = Cost(
    total=8,
    sites=tuple(
        SiteCost(path=path, kind=path, block=0, macs=3, bytes=SIZE, entries=SIZE // 4)
        for path in ("cross", "own")
    ),
    output_bytes=SIZE // 2,
    output_entries=SIZE // 8,
)


@settings(max_examples=40)
@given(schedules(), st.sampled_from([*WAYS]))
def test_runs_are_those_of_an_independent_implementation(schedule: Schedule, name: str):
    way = WAYS[name]
    model = way.model()
    with way.cached(model, schedule) as stats:
        output = way.sample(model)
        cross = len(model.cross.calls)
        assert torch.equal(way.sample(model), output)
        assert len(model.cross.calls) == 2 * cross
    torch.testing.assert_close(output, expected_of(schedule), rtol=1e-5, atol=1e-6)
    assert stats.recomputed == 0
    assert stats.bytes_held == 0
    assert stats.bytes_peak == schedule.predicted_bytes()
    made = model.cross.calls[:cross], model.own.calls[: len(model.own.calls) // 2]
    rows = sum(map(sum, made))  # of both sites: 2 samples, 2 frames
    whole = sum(schedule.rows["guidance"]) + N  # passes
    computed = (whole + 3 * rows / 8) / (8 * N)
    assert schedule.compute_fraction() == pytest.approx(computed)


def gated(**fills: Fill) -> Schedule:
    rows = {
        "guidance": (1, 1, 1, 0, 0, 0),
        "cross": (1, 1, 1, 0, 0, 0),
        "own": (1, 0, 1, 1, 0, 1),
    }
    return Schedule(evaluations=N, rows=rows, fills=fills, cost=COST)


MEAN = Fill(terms={}, passes="mean")
NOTHING = Fill(terms={3: (0.0,), 4: (0.0,), 5: (0.0,)})


@every_way
def test_without_a_difference_the_guided_output_is_the_conditional_one(way: Way):
    model = way.model()
    with way.cached(model, gated(guidance=NOTHING, cross=MEAN)):
        latent = noise()
        for evaluation, step in enumerate(STEPS):
            one, other = way.evaluate(model, latent, step)
            assert torch.equal(one, other) == (evaluation > 2)
            latent = latent - 0.1 * (other + 2 * (one - other))
    assert len(model.cross.calls) == (3 if way.order else 6)


@every_way
def test_an_exception_leaves_nothing_behind(way: Way):
    model = way.model()
    before, plain = anatomy(model), way.sample(model)
    with way.cached(model, gated(guidance=NOTHING, cross=MEAN)) as stats:
        output = way.sample(model)
        model.limit = len(model.cross.calls) + 2
        with pytest.raises(RuntimeError, match="interrupted"):
            way.sample(model)
        assert stats.bytes_held == 0
        model.limit = 10**6
        assert torch.equal(way.sample(model), output)
    assert anatomy(model) == before
    assert torch.equal(way.sample(model), plain)


@every_way
def test_nothing_waits_for_the_device(way: Way):
    model = way.model()
    with way.cached(model, gated(guidance=NOTHING, cross=MEAN)), NoWaiting():
        way.sample(model)


@every_way
@pytest.mark.parametrize("passes", [None, "mean"])
def test_outputs_that_are_put_away_are_divided_too(way: Way, passes: Literal["mean"] | None):
    model = way.model()
    schedule = gated(guidance=NOTHING, cross=Fill(terms={}, passes=passes))
    with way.cached(model, schedule):
        expected = way.sample(model)
    with way.cached(model, schedule, storage=Storage(place="cpu")):
        assert torch.equal(way.sample(model), expected)
    with way.cached(model, schedule, storage=Storage(dtype="bfloat16")) as stats:
        rounded = way.sample(model)
    torch.testing.assert_close(rounded, expected, rtol=0.05, atol=0.05)
    stored = schedule.changed(storage=Storage(dtype="bfloat16")).predicted_bytes()
    assert stats.bytes_peak == stored


@every_way
def test_gradients_flow_through_both_passes(way: Way):
    model, latent = way.model(), noise().requires_grad_()
    schedule = gated(guidance=NOTHING, cross=MEAN)
    with torch.enable_grad(), way.cached(model, schedule, differentiable=True):
        way.sample(model, latent).sum().backward()
    reference = noise().requires_grad_()
    step = 1e-3
    with torch.no_grad(), way.cached(model, schedule):
        moved = torch.zeros(2, 4)
        moved[0, 1] = step
        change = way.sample(model, reference + moved) - way.sample(model, reference - moved)
    assert latent.grad is not None
    assert float(change.sum()) / (2 * step) == pytest.approx(float(latent.grad[0, 1]), rel=0.01)


def test_a_run_without_guidance_follows_the_rows_of_sites():
    way = WAYS["conditional first"]
    model, labels = way.model(), torch.tensor([1.0, 0.5, -1.0, 0.25])
    latents = [torch.randn((4, 4), generator=torch.Generator().manual_seed(n)) for n in range(N)]
    with (
        pytest.warns(SmoothCacheWarning, match="guidance is off in this run"),
        way.cached(model, gated(guidance=NOTHING, cross=MEAN)),
    ):
        outputs = [model(latent, step, labels) for latent, step in zip(latents, STEPS, strict=True)]
    assert {len(output) for output in outputs} == {4}
    assert len(model.cross.calls) == 3
    assert set(model.cross.calls) == {8}


def test_an_output_that_has_no_halves_is_refused():
    class Joined(Model):
        def forward(self, hidden_states: Tensor, timestep: float, labels: Tensor) -> Tensor:
            del timestep
            return hidden_states + self.cross(hidden_states[:3], labels).mean()

    class Odd(Part):
        def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
            del labels
            return hidden

    way, model = WAYS["conditional first"], Joined()
    model.cross = Odd(0.0)
    rows = {"guidance": (1, 1, 1, 0, 0, 0), "cross": (1, 1, 1, 0, 0, 0)}
    with (
        pytest.raises(ScheduleError, match=r"a site gives a tensor of shape \(3, 4\) for a batch"),
        way.cached(model, Schedule(evaluations=N, rows=rows)),
    ):
        way.sample(model)


# ---------------------------------------------------------------------------- what is refused


def test_an_evaluation_of_both_passes_is_not_filled_from_one():
    rows = {"guidance": (1, 0, 1), "attn": (1, 1, 0)}
    said = "row 'attn' fills evaluation 2, which has both passes .* from evaluation 1, which has"
    with pytest.raises(ScheduleError, match=said):
        Schedule(evaluations=3, rows=rows)


def test_whole_evaluations_do_not_go_with_rows_of_sites():
    rows = {"denoiser": (1, 0), "attn": (1, 0)}
    with pytest.raises(ScheduleError, match="'denoiser' is of the whole model and cannot be"):
        Schedule(evaluations=2, rows=rows)


@pytest.mark.parametrize("key", ["denoiser", "guidance"])
def test_the_whole_model_has_no_mean_of_passes(key: str):
    with pytest.raises(ScheduleError, match="has passes; only sites give something in each"):
        Schedule(evaluations=2, rows={key: (1, 0)}, fills={key: MEAN})


def test_a_schedule_of_both_is_not_fitted():
    way = WAYS["conditional first"]
    model = way.model()
    sampler = Sampler(model=model, adapter=way.adapter, run=lambda seed: way.sample(model))
    with pytest.raises(ScheduleError, match="either can be fitted, not both"):
        fit(sampler, gated(guidance=NOTHING), seeds=[0, 1])


def test_the_file_holds_how_passes_are_used():
    schedule = gated(guidance=NOTHING, cross=MEAN)
    assert Schedule.imported(json.loads(schedule.to_json())) == schedule
