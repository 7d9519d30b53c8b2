"""Schedules of sites with the least predicted effect: what is predicted, and what is kept to."""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from kit.planning import Mixture, OneStep, Passes, ToySampler
from numpy.typing import NDArray
from smoothcache_core import Calibration, Schedule, calibrate
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, linear, reuse, taylor
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.planning import Limits
from smoothcache_core.schedule import Cost
from smoothcache_core.sources import plan_sites, smooth
from smoothcache_core.sources.prediction import combined, with_prediction
from smoothcache_core.sources.promises import Promises
from smoothcache_core.sources.site_problem import Objective, Per, Problem

STEPS = 10
GAINS = (1.0, 0.5, 0.25)
PERS: tuple[Per, ...] = ("site", "kind", "evaluation")
OBJECTIVES: tuple[Objective, ...] = ("sum", "squares", "minimax", "relative")
RULES = (reuse(), linear(2), linear(3), taylor(1), taylor(2))
Array = NDArray[np.float64]


@functools.cache
def calibration_of(passes: Passes = "one", sensitivity: int = 2) -> Calibration:
    """Return a calibration of three sites of two kinds."""
    sampler = ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS), passes, samples=4)
    calibration = calibrate(
        sampler.value(), seeds=(0, 1), max_lag=6, sensitivity=sensitivity, progress=False
    )
    return renamed(calibration, ("attn", "ff", "ff"))


def renamed(calibration: Calibration, kinds: tuple[str, ...]) -> Calibration:
    sites = tuple(
        replace(site, kind=kind) for site, kind in zip(calibration.sites, kinds, strict=True)
    )
    cost = calibration.cost
    costs = [one.changed(kind=kind) for one, kind in zip(cost.sites, kinds, strict=True)]
    return replace(calibration, sites=sites, cost=Cost(
        total=cost.total, sites=tuple(costs), output_bytes=cost.output_bytes
    ))  # fmt: skip


def priced(calibration: Calibration, *macs: int, outside: int = 0, size: int = 8) -> Calibration:
    """Return the calibration with other costs of its sites."""
    sites = [
        one.changed(macs=price, bytes=size)
        for one, price in zip(calibration.cost.sites, macs, strict=True)
    ]
    cost = Cost(total=sum(macs) + outside, sites=tuple(sites), output_bytes=size)
    return replace(calibration, cost=cost)


def rows_of(schedule: Schedule, calibration: Calibration) -> dict[str, tuple[int, ...]]:
    return {site.path: schedule.row(site) for site in calibration.sites}


# ---------------------------------------------------------------------------- what is predicted


def effects_by_hand(calibration: Calibration, schedule: Schedule) -> Array:
    """Return what every fill of a schedule does to the final sample, (sites, E), from products."""
    assert calibration.products is not None
    assert calibration.influence is not None
    assert calibration.dynamics is not None
    products = joined(calibration.products) / calibration.samples
    influence, effect = (
        calibration.influence.values(calibration.sites),
        calibration.dynamics.final_sensitivity(),
    )
    effects = np.zeros(products.shape[:2])
    for s, site in enumerate(calibration.sites):
        row, given_terms = schedule.row(site), schedule.fill(site).terms
        for i in range(calibration.evaluations):
            if row[i]:
                continue
            terms = given_terms.get(i, (1.0,))
            done = [e for e in reversed(range(i)) if row[e]][: len(terms)]
            signed = [(1.0, i), *((-c, e) for c, e in zip(terms, done, strict=True))]
            square = sum(
                a * b * products[s, max(x, y), abs(x - y)] for (a, x), (b, y) in
                itertools.product(signed, signed)
            )  # fmt: skip
            effects[s, i] = effect[i] * influence[s, i] * math.sqrt(max(square, 0.0))
    return effects


@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_predicted_error_is_what_stored_products_say(rule: FillRule, per: Per):
    calibration = calibration_of("batched")
    for compute in (0.5, 0.8):
        schedule = plan_sites(calibration, compute=compute, fill=rule, per=per)
        effects = effects_by_hand(calibration, schedule)
        each = np.sqrt(np.square(effects).sum(axis=0))
        expected = np.sqrt(np.sqrt(np.square(each).sum()) * each.sum())
        assert schedule.prediction is not None
        promise = Promises(calibration, noisy=False).of(schedule, expected)
        assert schedule.prediction.error == pytest.approx(promise.error, rel=1e-6)
        assert schedule.prediction.bytes == schedule.predicted_bytes()
        assert not schedule.prediction.measured
        assert (
            effects.any(axis=1) == [0 in row for row in rows_of(schedule, calibration).values()]
        ).all()


def test_smoothcaches_schedules_are_predicted_too():
    calibration = calibration_of()
    schedule = with_prediction(calibration, smooth(calibration, alpha=0.3, max_lag=3))
    assert schedule.skips
    assert schedule.prediction is not None
    each = np.sqrt(np.square(effects_by_hand(calibration, schedule)).sum(axis=0))
    estimate = float(np.sqrt(np.sqrt((each**2).sum()) * each.sum()))
    promise = Promises(calibration, noisy=False).of(schedule, estimate)
    assert schedule.prediction.error == pytest.approx(promise.error)
    bare = replace(calibration, influence=None)
    assert with_prediction(bare, smooth(calibration, alpha=0.3)).prediction is None


def test_a_fill_of_outputs_older_than_calibrated_is_not_predicted():
    calibration = calibration_of()
    row = (1,) + (0,) * (STEPS - 1)
    schedule = Schedule(evaluations=STEPS, rows={"attn": row}, cost=calibration.cost)
    assert with_prediction(calibration, schedule).prediction is None
    shorter = Schedule(evaluations=STEPS, rows={"attn": (1,) + (0,) * 6 + (1,) * 3},
                       cost=calibration.cost)  # fmt: skip
    assert with_prediction(calibration, shorter).prediction is not None


def totals(calibration: Calibration, schedule: Schedule) -> dict[str, float]:
    effects = effects_by_hand(calibration, schedule)
    relative = effects / _scale(calibration)
    return {
        "sum": float(effects.sum()),
        "squares": float(np.square(effects).sum()),
        "minimax": float(effects.max()),
        "relative": float(relative.sum()),
    }


def _scale(calibration: Calibration) -> Array:
    assert calibration.products is not None
    assert calibration.influence is not None
    assert calibration.dynamics is not None
    sizes = np.sqrt(joined(calibration.products)[:, :, 0] / calibration.samples)
    influence = calibration.influence.values(calibration.sites)
    return influence * calibration.dynamics.final_sensitivity() * sizes


@pytest.mark.parametrize("rule", [reuse(), linear(2)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("compute", [0.55, 0.7])
def test_each_objective_is_best_by_its_own_measure(compute: float, rule: FillRule):
    """Two terms at most, so what is minimised is exactly what is filled."""
    calibration, limits = calibration_of(), Limits(max_lag=3)
    found = {
        objective: totals(
            calibration,
            plan_sites(calibration, compute=compute, fill=rule, objective=objective, limits=limits),
        )
        for objective in OBJECTIVES
    }
    for objective, other in itertools.product(OBJECTIVES, OBJECTIVES):
        assert found[objective][objective] <= found[other][objective] * (1 + 1e-6), other


def test_every_schedule_of_one_group_is_no_better():
    """Brute force: rows shared by all sites, all of the affordable ones."""
    calibration, limits = calibration_of(), Limits(max_lag=3)
    schedule = plan_sites(calibration, compute=0.5, fill=reuse(), per="evaluation", limits=limits)
    best = totals(calibration, schedule)["sum"]
    for row in itertools.product((1, 0), repeat=STEPS - 1):
        whole = (1, *row)
        if sum(whole) > STEPS // 2 or "0000" in "".join(map(str, whole)):
            continue
        other = Schedule(evaluations=STEPS, rows={"attn": whole, "ff": whole})
        assert totals(calibration, other)["sum"] >= best * (1 - 1e-9)


# ---------------------------------------------------------------------------- budgets


@settings(max_examples=25)
@given(
    st.sampled_from(PERS),
    st.sampled_from(OBJECTIVES),
    st.floats(0.45, 1.0),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(0, 9),
)
def test_the_budget_is_kept(
    per: Per, objective: Objective, compute: float, macs: tuple[int, int, int], outside: int
):
    calibration = priced(calibration_of(), *macs, outside=outside)
    limits = Limits(max_lag=3)
    try:
        schedule = plan_sites(
            calibration, compute=compute, per=per, objective=objective, limits=limits
        )
    except ScheduleError:
        least = (sum(macs) * math.ceil(STEPS / 4) / STEPS + outside) / (sum(macs) + outside)
        assert compute < least
        return
    assert schedule.compute_fraction() <= compute + 1e-12
    rows = rows_of(schedule, calibration)
    if per != "site":
        assert rows["parts.1"] == rows["parts.2"]
    if per == "evaluation":
        assert len(set(rows.values())) == 1


@pytest.mark.parametrize("per", PERS)
def test_more_compute_has_no_larger_effect(per: Per):
    calibration = calibration_of()
    sums = [
        totals(calibration, plan_sites(calibration, compute=compute, per=per))["sum"]
        for compute in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    ]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] == 0.0


def test_prices_by_kind_or_path_say_what_computing_costs():
    calibration = calibration_of()
    cheap = {"attn": 1.0, "ff": 1.0}
    prices: Mapping[str, float] = {"attn": 5.0, "ff": 1.0, "parts.2": 3.0}
    schedule = plan_sites(calibration, compute=0.6, prices=prices)
    rows = rows_of(schedule, calibration)
    price = {"parts.0": 5.0, "parts.1": 1.0, "parts.2": 3.0}
    spent = sum(price[path] * sum(row) for path, row in rows.items())
    assert spent <= 0.6 * 9.0 * STEPS
    assert spent > 0.5 * 9.0 * STEPS
    same = plan_sites(calibration, compute=0.6, prices=cheap)
    assert same.rows == plan_sites(calibration, compute=0.6, prices={"attn": 7.0, "ff": 7.0}).rows
    assert sum(rows["parts.0"]) < sum(rows_of(same, calibration)["parts.0"])


# ---------------------------------------------------------------------------- limits


@settings(max_examples=25)
@given(
    st.sampled_from(PERS),
    st.sampled_from(["sum", "minimax"]),
    st.integers(1, 3),
    st.sets(st.integers(0, STEPS - 1), max_size=3),
    st.integers(1, 6),
)
def test_pinned_evaluations_are_computed_and_lags_kept(
    per: Per, objective: Objective, first: int, pinned: set[int], max_lag: int
):
    limits = Limits(first=first, pinned=pinned, max_lag=max_lag)
    schedule = plan_sites(
        calibration_of(), compute=0.8, per=per, objective=objective, limits=limits
    )
    for row in rows_of(schedule, calibration_of()).values():
        assert all(row[i] for i in {*range(first), *pinned})
        assert "0" * (max_lag + 1) not in "".join(map(str, row))


@pytest.mark.parametrize(("rule", "longest"), [(reuse(), 6), (linear(2), 3), (taylor(2), 3)])
def test_without_max_lag_no_fill_goes_beyond_what_was_calibrated(rule: FillRule, longest: int):
    schedule = plan_sites(calibration_of(), compute=0.4, fill=rule, per="evaluation")
    gaps = "".join(map(str, schedule.rows["attn"])).split("1")
    assert max(map(len, gaps)) <= longest
    assert schedule.source.settings["max_lag"] == longest
    for fill in schedule.fills.values():
        for terms in fill.terms.values():
            assert len(terms) <= rule.terms


@pytest.mark.parametrize("cap", [0, 8, 16, 24, 40, 48, 64, 72, 1000])
@pytest.mark.parametrize("rule", [reuse(), linear(2), linear(3)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("per", PERS)
def test_cached_bytes_stay_below_the_cap(per: Per, rule: FillRule, cap: int):
    calibration = priced(calibration_of(), 4, 2, 1)
    limits = Limits(max_bytes=cap)
    schedule = plan_sites(calibration, compute=1.0, fill=rule, per=per, limits=limits)
    assert not schedule.skips  # all can be afforded
    try:
        schedule = plan_sites(calibration, compute=0.9, fill=rule, per=per, limits=limits)
    except ScheduleError:
        assert cap < 3 * rule.terms * 8
        return
    assert schedule.predicted_bytes() <= cap


def test_memory_goes_to_what_costs_most_per_byte():
    calibration = priced(calibration_of(), 1, 9, 1)
    limits = Limits(max_bytes=8)
    schedule = plan_sites(calibration, compute=0.7, fill=reuse(), limits=limits)
    skipping = [path for path, row in rows_of(schedule, calibration).items() if 0 in row]
    assert skipping == ["parts.1"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_rows_than_allowed(limit: int):
    limits = Limits(max_rows=limit)
    schedule = plan_sites(calibration_of(), compute=0.6, limits=limits)
    assert len(set(rows_of(schedule, calibration_of()).values())) <= limit
    free = plan_sites(calibration_of(), compute=0.6)
    sums = [totals(calibration_of(), one)["sum"] for one in (free, schedule)]
    assert sums[0] <= sums[1] * (1 + 1e-9)


# ---------------------------------------------------------------------------- what is returned


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_fills_are_made_of_the_outputs_that_were_computed(rule: FillRule):
    calibration = calibration_of()
    schedule = plan_sites(calibration, compute=0.6, fill=rule)
    assert calibration.products is not None
    products = joined(calibration.products) / calibration.samples
    for s, site in enumerate(calibration.sites):
        row = schedule.row(site)
        for i in (e for e in range(STEPS) if not row[e]):
            done = [e for e in reversed(range(i)) if row[e] and i - e <= 6][: rule.terms]
            which = [i, *done]
            gram = np.array([[products[s, max(a, b), abs(a - b)] for a in which] for b in which])
            places = np.array([float(e - i) for e in which])
            expected = rule.coefficients(gram[None], places[None])[0]
            found = schedule.fill(site).terms.get(i, (1.0,))
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_schedule_says_where_it_comes_from():
    calibration = calibration_of()
    schedule = plan_sites(calibration, compute=0.7, per="kind", objective="squares")
    assert schedule.source.name == "planned"
    assert dict(schedule.source.settings) == {
        "compute": 0.7, "fill": "linear-2", "per": "kind", "objective": "squares", "max_lag": 3
    }  # fmt: skip
    assert schedule.source.seeds == (0, 1)
    assert schedule.fingerprint == calibration.fingerprint
    assert schedule.cost == calibration.cost
    assert set(schedule.rows) == {"attn", "ff"}
    assert Schedule(**schedule.model_dump()) == schedule
    assert plan_sites(calibration, compute=0.7, per="kind", objective="squares") == schedule


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"compute": 0.0}, r"compute is a fraction in \(0, 1\], got 0.0"),
        ({"compute": 1.01}, r"compute is a fraction in \(0, 1\], got 1.01"),
        ({"compute": math.nan}, r"compute is a fraction in \(0, 1\], got nan"),
        ({"compute": 0.2}, "budget .* is below .*, the least possible with fills of at most 3"),
        ({"per": "block"}, r"per is one of \['site', 'kind', 'evaluation'\], got 'block'"),
        ({"objective": "least"}, "objective is one of .*, got 'least'"),
        ({"prices": {"attn": 1.0}}, "for 'parts.1' there is None"),
        ({"prices": {"attn": 1.0, "ff": math.nan}}, "for 'parts.1' there is nan"),
        ({"prices": {"attn": 0.0, "ff": 1.0}}, "for 'parts.0' there is 0.0"),
        ({"prices": {"attn": 1.0, "ff": math.inf}}, "for 'parts.1' there is inf"),
        (
            {"prices": {"attn": 1.0, "ff": 1.0, "fff": 1.0}},
            r"prices name \['fff'\], which are neither kinds nor paths",
        ),
        ({"limits": Limits(first=11)}, "first is from 1 to 10 evaluations, got 11"),
        (
            {"limits": Limits(pinned=(3, 10))},
            r"pinned evaluations are from 0 to 9, got \[10\]",
        ),
        ({"limits": Limits(max_lag=7)}, "max_lag must be from 1 to 6, .* got 7"),
        (
            {"limits": Limits(max_rows=2), "objective": "minimax"},
            "max_rows cannot be kept with the objective 'minimax'",
        ),
        ({"limits": Limits(first=8), "compute": 0.5}, "budget .* is below"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(wrong: dict[str, Any], message: str):
    given: dict[str, Any] = {"compute": 0.6} | wrong
    with pytest.raises(ScheduleError, match=message) as told:
        plan_sites(calibration_of(), **given)
    assert "\n" not in str(told.value)


def test_a_calibration_that_lacks_something_is_refused():
    calibration = calibration_of()
    for bare in (
        calibration_of(sensitivity=0),
        replace(calibration, influence=None),
        replace(calibration, dynamics=None),
    ):
        with pytest.raises(ScheduleError, match="planning needs sensitivities: calibrate with"):
            plan_sites(bare, compute=0.6)
    why = replace(calibration, dynamics=None, remark="it clips")
    with pytest.raises(ScheduleError, match="planning needs sensitivities: it clips"):
        plan_sites(why, compute=0.6)
    with pytest.raises(ScheduleError, match=r"holds no inner products of sites: calibrate again"):
        plan_sites(replace(calibration, products=None), compute=0.6)
    with pytest.raises(ScheduleError, match=r"'parts.1' costs no MACs; give prices"):
        plan_sites(priced(calibration, 4, 0, 1), compute=0.6)


def test_relative_errors_need_no_sensitivities():
    schedule = plan_sites(calibration_of(sensitivity=0), compute=0.6, objective="relative")
    assert schedule.prediction is None
    assert schedule.compute_fraction() <= 0.6
    assert plan_sites(calibration_of(), compute=0.6, objective="relative").rows == schedule.rows


def test_an_output_that_is_zero_is_no_trouble_to_relative_errors():
    calibration = calibration_of()
    assert calibration.products is not None
    products = calibration.products.copy()
    products[:, 1] = 0.0
    schedule = plan_sites(
        replace(calibration, products=products), compute=0.6, objective="relative"
    )
    assert schedule.compute_fraction() <= 0.6


def test_errors_of_one_evaluation_add_up_where_all_miss_the_same_noise():
    effects = np.array([[3.0, 0.0], [4.0, 0.0]])
    assert combined(effects, together=False) == pytest.approx(5.0)
    assert combined(effects, together=True) == pytest.approx(7.0)


def test_a_problem_is_solved_for_one_budget_after_the_other():
    """Nothing is left behind by a budget: each is solved as if it were the first."""
    calibration = calibration_of()
    problem = Problem(calibration, linear(2), "site", "sum", Limits())
    budgets = [problem.budget(compute) for compute in (0.8, 0.5, 0.8)]
    rows = [problem.solve(budget) for budget in budgets]
    assert (rows[0] == rows[2]).all()
    fresh = Problem(calibration, linear(2), "site", "sum", Limits())
    assert (fresh.solve(budgets[1]) == rows[1]).all()
