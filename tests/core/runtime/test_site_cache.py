"""Filling skipped outputs by linear combinations of the computed ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from kit.helpers import (
    ADAPTER,
    DELTA,
    STEPS,
    DeltaToy,
    NoWaiting,
    Toy,
    anatomy,
    noise,
    sample,
    schedule_of,
    silent,
)
from smoothcache_core import PatternAdapter, Schedule, SitePattern, attach, cached, calibrate
from smoothcache_core.errors import ScheduleError
from smoothcache_core.runtime import CacheStats
from smoothcache_core.schedule.fill import Fill
from torch import Tensor, nn

N = len(STEPS)
PAIR = ("cond", "uncond")
LINE = (2.0, -1.0)
PARABOLA = (3.0, -3.0, 1.0)
Terms = dict[int, tuple[float, ...]]


def fills_of(**terms: Terms) -> dict[str, Fill]:
    return {key: Fill(terms=each) for key, each in terms.items()}


@st.composite
def rows_and_fills(draw: st.DrawFn) -> Schedule:
    """Draw a schedule of the toy, whose coefficients keep the arithmetic exact."""
    rows: dict[str, list[int]] = {}
    fills: dict[str, Fill] = {}
    for kind in ("attn", "ff"):
        row = [1, *draw(st.lists(st.integers(0, 1), min_size=N - 1, max_size=N - 1))]
        skipped = [e for e in range(N) if not row[e]]
        choices = [(1.0,), (0.5,), LINE, (0.75, 0.25), PARABOLA]
        possible = {e: [c for c in choices if len(c) <= sum(row[:e])] for e in skipped}
        terms = {e: draw(st.sampled_from(possible[e])) for e in skipped}
        rows[kind], fills[kind] = row, Fill(terms=terms)
    rows["attn"][-1] = 0
    return Schedule(evaluations=N, rows=rows, fills=fills)


def by_hand(toy: Toy, schedule: Schedule, branches: Sequence[str]) -> list[Tensor]:
    """Sample by an implementation of fills that shares nothing with the library."""
    computed: dict[tuple[str, int, str], list[Tensor]] = {}
    latent, outputs = noise(), []
    gate = torch.tensor([1.0, 1.0, 1.0, 0.0])  # the last channel is the signature
    for evaluation in range(N):
        for number, branch in enumerate(branches):
            hidden = latent + number
            for index in range(len(toy.blocks)):
                for kind, row in schedule.rows.items():
                    past = computed.setdefault((branch, index, kind), [])
                    if row[evaluation]:
                        past.insert(0, 2 * hidden)
                    terms = schedule.fills[kind].terms.get(evaluation, (1.0,))
                    terms = (1.0,) if row[evaluation] else terms
                    filled = sum(c * t for c, t in zip(terms, past, strict=False))
                    hidden = hidden + filled * gate
            outputs.append(hidden * toy.scale)
        latent = latent - outputs[-1] / 4
    return outputs


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


# ---------------------------------------------------------------------------- numbers


def test_fills_by_hand():
    toy = Toy(blocks=1, width=2)
    toy.scale = 1.0
    schedule = Schedule(
        evaluations=4,
        rows={"attn": (1, 1, 0, 0), "ff": (1, 1, 1, 1)},
        fills=fills_of(attn={2: LINE, 3: (0.5,)}),
    )
    x = torch.ones(1, 1, 2)
    with cached(toy, ADAPTER, schedule):
        outputs = [toy(value * x, -value)[0, 0, 0].item() for value in (1, 10, 20, 30)]
    # attn gives 2, 20, then 2 * 20 - 2 = 38 and 0.5 * 20 = 10; ff makes three of one
    assert outputs == [9.0, 90.0, 3 * 58.0, 3 * 40.0]


@settings(max_examples=60)
@given(rows_and_fills(), st.sampled_from([("",), PAIR]), st.booleans())
def test_outputs_are_those_of_an_independent_implementation(
    schedule: Schedule, branches: tuple[str, ...], pair: bool
):
    toy = Toy(pair=pair)
    declared = branches if len(branches) > 1 else ()
    with cached(toy, ADAPTER, schedule, branches=declared) as stats:
        outputs = sample(toy, branches=branches)
        again = sample(toy, branches=branches)
    assert equal(outputs, by_hand(toy, schedule, branches))
    assert equal(again, outputs)
    skipped = {kind: row.count(0) for kind, row in schedule.rows.items()}
    expected = {
        f"blocks.{b}.{kind}": 2 * len(branches) * skipped[kind] for kind in skipped for b in (0, 1)
    }
    assert stats.reused == {path: count for path, count in expected.items() if count}
    assert stats.recomputed == 0


def test_chunks_have_a_history_each():
    schedule = Schedule(
        evaluations=N,
        rows={"ff": (1, 1, 1, 0, 0, 1)},
        fills=fills_of(ff={3: PARABOLA, 4: LINE}),
    )
    outputs = []
    for chunks in (1, 3):
        toy = Toy(chunks=chunks)
        with cached(toy, ADAPTER, schedule):
            outputs.append(sample(toy))
        assert toy.journal.computed["blocks.0.ff"] == [
            n for n in (0, 1, 2, 5) for _ in range(chunks)
        ]
    assert equal(*outputs)


def test_plain_reuse_written_as_a_term_is_plain_reuse():
    """The very tensors, not copies of them."""
    toy, given = Toy(), []
    vars(toy.blocks[0])["deliver"] = lambda path, *outputs: (
        given.append(outputs[0]) if path == "blocks.0.attn" else None
    )
    schedule = Schedule(
        evaluations=N, rows={"attn": (1, 1, 0, 0, 1, 1)}, fills=fills_of(attn={2: (1.0,), 3: LINE})
    )
    with cached(toy, ADAPTER, schedule):
        sample(toy)
    assert given[2].data_ptr() == given[1].data_ptr()
    assert given[3].data_ptr() not in (given[0].data_ptr(), given[1].data_ptr())


class Scripted(nn.Module):
    """Gives what it is told to."""

    def __init__(self, *outputs: Any) -> None:
        super().__init__()
        self.outputs = list(outputs)

    def forward(self, hidden: Tensor) -> Any:
        del hidden
        return self.outputs.pop(0)


class Told(nn.Module):
    """A denoiser that gives what its only site gives."""

    def __init__(self, *outputs: Any) -> None:
        super().__init__()
        self.site = Scripted(*outputs)

    def forward(self, hidden_states: Tensor, timestep: float) -> Any:
        del timestep
        return self.site(hidden_states)


TOLD = PatternAdapter(name="told", patterns=(SitePattern("site", "site"),))


def filled(outputs: Sequence[Any], terms: tuple[float, ...]) -> Any:
    """Return what fills the evaluation after those that give `outputs`."""
    model, number = Told(*outputs), len(outputs)
    schedule = Schedule(
        evaluations=number + 1,
        rows={"site": (*[1] * number, 0)},
        fills=fills_of(site={number: terms}),
    )
    with cached(model, TOLD, schedule):
        given = [model(torch.zeros(1), -step) for step in range(number + 1)]
    return given[-1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_taken_in_float32(dtype: torch.dtype):
    """3 * 40000 is over what float16 can hold, and 3 * 1.0078125 is rounded by bfloat16."""
    values = [torch.tensor([value, 1.0], dtype=dtype) for value in (40000.0, 39936.0, 40064.0)]
    values[2][1] = 1.0078125
    expected = [3 * float(c) - 3 * float(b) + float(a) for a, b, c in zip(*values, strict=True)]
    output = filled(values, PARABOLA)
    assert output.dtype == dtype
    assert torch.equal(output, torch.tensor(expected).to(dtype))


def test_float64_stays_float64():
    first = torch.tensor([1.0], dtype=torch.float64)
    second = first + 1e-12
    output = filled([first, second], (1.3, -0.3))
    assert output.dtype == torch.float64
    assert output.item() == 1.3 * second.item() - 0.3 * first.item()


def test_tuples_are_filled_element_by_element():
    outputs = [(torch.ones(2) * v, None, torch.tensor([v]).half()) for v in (1.0, 3.0)]
    first, nothing, last = filled(outputs, LINE)
    assert torch.equal(first, torch.tensor([5.0, 5.0]))
    assert nothing is None
    assert torch.equal(last, torch.tensor([5.0]).half())


def test_whole_numbers_are_taken_from_the_newest():
    outputs = [(torch.ones(1) * v, torch.tensor([v], dtype=torch.long)) for v in (1, 3)]
    assert [tensor.item() for tensor in filled(outputs, LINE)] == [5.0, 3]


def test_a_filled_delta_is_added_to_the_present_input():
    toy = DeltaToy()
    schedule = Schedule(evaluations=3, rows={"block": (1, 1, 0)}, fills=fills_of(block={2: LINE}))
    with cached(toy, DELTA, schedule):
        outputs = [toy(torch.full((1, 1), value), value) for value in (5.0, 3.0, 1.0)]
    # both deltas are 10, then 6, so 2 * 6 - 10 = 2: 1 + 2 and 1 + 2
    assert [float(output) for output in outputs] == [30.0, 18.0, 6.0]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_fills_work_in_every_gradient_mode_and_after_every_other(mode: Callable[[], Any]):
    toy = Toy().requires_grad_(False)
    schedule = Schedule(
        evaluations=N,
        rows={"attn": (1, 1, 0, 0, 1, 0)},
        fills=fills_of(attn={2: LINE, 5: PARABOLA}),
    )
    with cached(toy, ADAPTER, schedule):
        with mode():
            first = sample(toy)
        for other in (torch.enable_grad, torch.inference_mode):
            with other():
                assert equal(sample(toy), first)


def test_nothing_waits_for_the_device():
    model = Told(*[(torch.ones(2) * value, torch.tensor([value])) for value in range(3)])
    schedule = Schedule(
        evaluations=5,
        rows={"site": (1, 1, 0, 1, 0)},
        fills=fills_of(site={2: LINE, 4: PARABOLA}),
    )
    with cached(model, TOLD, schedule) as stats, NoWaiting():
        for step in range(5):
            model(torch.zeros(1), -step)
    assert stats.reused == {"site": 2}


# ---------------------------------------------------------------------------- missing outputs


def test_what_cannot_be_filled_is_computed_and_counted():
    """The batch changes at evaluation 3: the fill of 4 needs 2 and 3, and has 3 alone."""
    toy = Toy()
    schedule = schedule_of((1, 1, 1, 1, 0, 0))
    schedule = schedule.changed(fills=fills_of(attn={4: LINE}, ff={4: LINE}))
    with cached(toy, ADAPTER, schedule) as stats:
        for evaluation, step in enumerate(STEPS):
            toy(noise(shape=(2 if evaluation < 3 else 4, 3, 4)), step)
    # 4 is computed, and 5 reuses it
    assert toy.journal.computed["blocks.1.ff"] == [0, 1, 2, 3, 4]
    assert toy.journal.delivered["blocks.1.ff"] == [0, 1, 2, 3, 4, 4]
    assert (stats.recomputed, stats.bytes_held) == (4, 0)


class Chunked(nn.Module):
    """A denoiser that calls its only site as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Identity()
        self.chunks = 1

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        del timestep
        return torch.cat([self.site(chunk) for chunk in hidden_states.chunk(self.chunks)])


def test_outputs_of_other_numbers_of_calls_are_not_combined():
    model, latent = Chunked(), noise()
    schedule = Schedule(evaluations=4, rows={"site": (1, 1, 0, 0)}, fills=fills_of(site={2: LINE}))
    with cached(model, TOLD, schedule) as stats:
        for step, chunks in enumerate((1, 2, 2, 2)):
            model.chunks = chunks
            assert torch.equal(model(latent, -step), latent)
    assert (stats.recomputed, stats.reused) == (1, {"site": 1})


@settings(max_examples=30)
@given(rows_and_fills(), st.integers(0, N - 1), st.sampled_from(PAIR))
def test_a_branch_that_joins_late_shares_nothing(schedule: Schedule, start: int, poisoned: str):
    """One branch is all NaN, and the other must not notice."""
    toy, outputs = Toy(), []
    with cached(toy, ADAPTER, schedule, branches=PAIR):
        for evaluation, step in enumerate(STEPS):
            for branch in PAIR:
                latent = noise() * torch.nan if branch == poisoned else noise()
                if branch == "cond" or evaluation >= start:
                    output = toy(latent, step)
                    outputs += [output] if branch != poisoned else []
    assert all(output[..., :-1].isfinite().all() for output in outputs)


# ---------------------------------------------------------------------------- memory


def cost_sampled(toy: Toy, branches: Sequence[str]) -> Any:
    declared = branches if len(branches) > 1 else ()
    sampler = silent(toy, lambda seed: sample(toy, branches=branches), branches=declared)
    return calibrate(sampler, seeds=[0], max_lag=3, sensitivity=0, progress=False).cost


@settings(max_examples=40)
@given(rows_and_fills(), st.sampled_from([("",), PAIR]), st.booleans())
def test_predicted_bytes_are_those_of_a_run(
    schedule: Schedule, branches: tuple[str, ...], pair: bool
):
    toy = Toy(blocks=3, pair=pair, chunks=3)
    cost = cost_sampled(toy, branches)
    with cached(toy, ADAPTER, schedule, branches=branches if len(branches) > 1 else ()) as stats:
        sample(toy, branches=branches)
    assert stats.bytes_peak == schedule.predicted_bytes(cost)
    assert stats.bytes_held == 0


def test_kept_outputs_are_dropped_right_after_their_last_use():
    toy, seen = Toy(blocks=1), []
    schedule = Schedule(
        evaluations=N, rows={"ff": (1, 1, 1, 0, 1, 0)}, fills=fills_of(ff={3: PARABOLA, 5: LINE})
    )
    with cached(toy, ADAPTER, schedule) as stats:

        def watched(*call: Any) -> Tensor:
            output = toy(*call)
            seen.append(stats.bytes_held // (2 * 3 * 4 * 4))
            return output

        sample(watched)
    assert seen == [1, 2, 3, 1, 2, 0]


# ---------------------------------------------------------------------------- restoring, refusing


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [2, 3, N])
def test_nothing_is_left_behind(stop: int):
    toy = Toy()
    before = anatomy(toy)
    schedule = schedule_of((1, 1, 0, 0, 1, 0))
    schedule = schedule.changed(fills=fills_of(attn={2: LINE, 3: LINE, 5: LINE}))

    def interrupt() -> CacheStats:
        with cached(toy, ADAPTER, schedule) as stats:
            handle = toy.blocks[1].register_forward_pre_hook(check)
            try:
                sample(toy)
            finally:
                handle.remove()
        return stats

    def check(*_: object) -> None:
        if toy.journal.call == stop:
            raise Interrupted

    if stop < N:
        with pytest.raises(Interrupted):
            interrupt()
    else:
        assert interrupt().bytes_held == 0
    assert anatomy(toy) == before


REFUSED: dict[str, tuple[Mapping[str, Sequence[int]], dict[str, Fill], str]] = {
    "starved by a more specific row": (
        {"attn": (1, 1, 0), "blocks.1.attn": (1, 0, 0)},
        fills_of(attn={2: LINE}),
        r"fill of 'blocks.1.attn' has 2 terms at evaluation 2, but only 1 outputs",
    ),
    "fill of nothing": (
        {"attn": (1, 1, 0)},
        {"attn-9": Fill(terms={2: LINE})},
        r"the schedule names \['attn-9'\]",
    ),
}


@pytest.mark.parametrize(("rows", "fills", "message"), REFUSED.values(), ids=REFUSED)
def test_fills_that_do_not_fit_are_refused(
    rows: Mapping[str, Sequence[int]], fills: dict[str, Fill], message: str
):
    toy = Toy()
    before = anatomy(toy)
    with pytest.raises(ScheduleError, match=message):
        attach(toy, ADAPTER, Schedule(evaluations=3, rows=rows, fills=fills))
    assert anatomy(toy) == before
