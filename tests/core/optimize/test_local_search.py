"""What to compute: searched on simulated runs, against everything that could be computed."""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from kit.planning import Mixture, OneStep, Passes, ToySampler
from smoothcache_core.calibrating.solver_response import measure_response
from smoothcache_core.optimize.local_search import Search, allows, moves
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import ReducedRun
from smoothcache_core.planning import Limits
from smoothcache_core.sampling.recording import record

BUDGETS = (2, 3, 4, 5, 6)


@functools.cache
def reduced_of(seed: int = 0, evaluations: int = 8, passes: Passes = "one") -> ReducedRun:
    model = Mixture((1.0, 0.5), evaluations, seed=seed)
    sampler = ToySampler(model, lambda: OneStep(evaluations), passes, samples=4)
    plain = record(sampler.value(), seed)
    vectors = torch.cat((plain.latents, plain.end[None], *plain.outputs.unbind(dim=1))).double()
    gram = (vectors @ vectors.T).numpy()
    feedback = model.feedback()[:, : plain.parts].double().numpy()
    return ReducedRun(gram, measure_response(sampler.value(), plain), feedback)


def mask_of(text: Iterable[str]) -> Mask:
    """Read "1" computed, "c" conditional pass only, "." skipped."""
    texts = tuple(text)
    return Mask(denoiser=tuple(t != "." for t in texts), guidance=tuple(t == "1" for t in texts))


def everything(evaluations: int, guidance: bool) -> list[Mask]:
    rest = itertools.product("1c." if guidance else "1.", repeat=evaluations - 1)
    return [mask_of(("1", *texts)) for texts in rest]


def is_within(mask: Mask, budget: float, pinned: set[int], max_lag: int) -> bool:
    text = "".join("1" if one else "." for one in mask.denoiser)
    fully = all(mask.denoiser[i] and mask.guidance[i] for i in {0, *pinned})
    return mask.compute <= budget and fully and "." * (max_lag + 1) not in text


# ---------------------------------------------------------------------------- quality


@pytest.mark.parametrize("passes", ["one", "batched"])
def test_most_searches_find_the_best_of_all(passes: Passes):
    ratios = []
    for seed in range(6):
        search = Search(reduced_of(seed, passes=passes), Limits())
        costs = {mask: search.cost(mask) for mask in everything(8, guidance=False)}
        for budget in BUDGETS:
            best = min(cost for mask, cost in costs.items() if mask.compute <= budget)
            ratios.append(search.best(budget, guidance=False).error / best)
    assert min(ratios) >= 1.0 - 1e-12
    assert np.mean(np.array(ratios) < 1.0 + 1e-9) >= 0.8
    assert np.mean(ratios) < 1.03
    assert max(ratios) < 1.4


def test_most_searches_with_half_evaluations_find_the_best_of_all():
    ratios = []
    for seed in range(4):
        search = Search(reduced_of(seed, 6, "batched"), Limits())
        costs = {mask: search.cost(mask) for mask in everything(6, guidance=True)}
        for budget in (2, 2.5, 3, 4, 5):
            best = min(cost for mask, cost in costs.items() if mask.compute <= budget)
            ratios.append(search.best(budget, guidance=True).error / best)
    assert min(ratios) >= 1.0 - 1e-12
    assert np.mean(np.array(ratios) < 1.0 + 1e-9) >= 0.7
    assert max(ratios) < 1.4


@given(st.integers(0, 5), st.sampled_from(BUDGETS))
def test_no_evenly_spread_schedule_is_better(seed: int, budget: int):
    search = Search(reduced_of(seed), Limits())
    even = {round(place) for place in np.linspace(0, 8, budget, endpoint=False).tolist()}
    spread = mask_of("1" if i in even else "." for i in range(8))
    assert search.best(budget, guidance=False).error <= search.cost(spread)


@given(st.integers(0, 5), st.sampled_from(BUDGETS))
def test_no_single_move_makes_it_better(seed: int, budget: int):
    search = Search(reduced_of(seed), Limits())
    found = search.best(budget, guidance=False)
    assert found.error == search.cost(found.mask)
    for position in range(1, 8):
        assert all(search.cost(other) >= found.error for other in moves(found.mask, position))


def test_what_is_minimised_is_the_error_and_the_drift():
    reduced, mask = reduced_of(), mask_of("1..1.1..")
    for terms, use_input in itertools.product((1, 3), (False, True)):
        run = reduced.simulate(mask, Basis(terms=terms, use_input=use_input))
        search = Search(reduced, Limits(), Basis(terms=terms, use_input=use_input))
        assert search.cost(mask) == np.hypot(run.error, run.drift)


def test_searches_are_repeatable_and_do_not_depend_on_each_other():
    reduced = reduced_of(3, 8, "batched")
    one, other = Search(reduced, Limits()), Search(reduced, Limits())
    forward = {b: one.best(b, guidance=True) for b in BUDGETS}
    backward = {b: other.best(b, guidance=True) for b in reversed(BUDGETS)}
    assert forward == backward


# ---------------------------------------------------------------------------- limits


@given(
    st.sets(st.integers(1, 7), max_size=3),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.booleans(),
)
def test_limits_are_kept_whenever_they_can_be(
    pinned: set[int], max_lag: int, extra: float, guidance: bool
):
    limits = Limits(pinned=pinned, max_lag=max_lag)
    budget = len(limits.fewest(8)) + extra
    found = Search(reduced_of(1, 8, "batched"), limits).best(budget, guidance=guidance)
    assert is_within(found.mask, budget, pinned, max_lag)
    assert allows(limits, found.mask)
    if not guidance:
        assert found.mask.denoiser == found.mask.guidance
        assert found.mask.compute == int(budget)


@given(st.sets(st.integers(0, 7), max_size=3), st.integers(1, 8))
def test_no_fewer_evaluations_keep_the_limits(pinned: set[int], max_lag: int):
    limits = Limits(pinned=pinned, max_lag=max_lag)
    fewest = limits.fewest(8)
    assert allows(limits, mask_of("1" if i in fewest else "." for i in range(8)))
    allowed = [s.compute for s in everything(8, guidance=False) if allows(limits, s)]
    assert min(allowed) == len(fewest)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("1..1..", True),
        ("1...1.", False),
        ("11.1..", True),
        ("1..c..", False),
        ("1.1...", False),
        ("1..1.c", True),
    ],
)
def test_pinned_evaluations_have_both_passes_and_gaps_an_end(text: str, allowed: bool):
    limits = Limits(pinned=(3,), max_lag=2)
    assert allows(limits, mask_of(text)) == allowed


def test_half_evaluations_count_a_half():
    search = Search(reduced_of(2, 8, "batched"), Limits())
    for budget in (2.5, 3.5, 5.0):
        found = search.best(budget, guidance=True).mask
        assert found.compute <= budget
        assert found.guidance[0]
        assert all(
            one or not both for one, both in zip(found.denoiser, found.guidance, strict=True)
        )


@given(st.text("1c.", min_size=5, max_size=5))
def test_moves_keep_what_is_spent(rest: str):
    mask = mask_of("1" + rest)
    for position in range(1, 6):
        for moved in moves(mask, position):
            assert moved.compute == mask.compute
            assert moved.denoiser[0]
            assert moved.guidance[0]
            assert moved != mask
