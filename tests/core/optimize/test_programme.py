"""The planner's dynamic programme, against all rows there are."""

import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array, Rows
from smoothcache_core.optimize.costs import checked_problem, effect_of, effects_of, spend
from smoothcache_core.optimize.programme import at_most_rows, minimax, within_budget
from smoothcache_core.optimize.segments import (
    least_where,
    row_of_count,
    segments_of,
    solve_lagrangian,
    sums_by_count,
)

Candidates = list[tuple[Rows, Array]]
Point = tuple[int, float]
FEW = settings(max_examples=60, deadline=None)


def least_spend(effects: Array, prices: Array, pinned: Rows) -> float:
    """Return the least `spend` that the pinned evaluations, A and forbidden effects allow."""
    effects, prices, pinned = checked_problem(effects, prices, pinned)
    return least_where(np.isfinite(segments_of(effects, pinned)), prices)


def cheapest(effects: Array, prices: Array, multiplier: float, pinned: Rows) -> Rows:
    """Return the rows, (G, E), of the least sum of effects + multiplier * spend."""
    effects, prices, pinned = checked_problem(effects, prices, pinned)
    return solve_lagrangian(segments_of(effects, pinned), multiplier * prices)


def exact_count(effects: Array, pinned: Rows, count: int, *, fewer: bool = False) -> Rows | None:
    """Return the row, (E,), of the least effect that computes `count` evaluations, or fewer."""
    effects, _, pinned = checked_problem(effects[None], np.ones(1), pinned)
    segments = segments_of(effects, pinned)[..., 0]
    sums = sums_by_count(segments, count)
    best = int(sums[0, 0].argmin()) if fewer else count
    return None if np.isinf(sums[0, 0, best]) else row_of_count(segments, sums, best)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Whole numbers as effects and prices, so that all sums are exact and ties happen."""

    effects: Array
    prices: Array
    pinned: Rows

    def budget(self, fraction: float):
        """Return a budget between the least possible and everything."""
        evaluations = self.effects.shape[1]
        least = least_spend(self.effects, self.prices, self.pinned)
        return least + fraction * (self.prices.sum() * evaluations - least)

    def candidates(self):
        """Return for every group all (row, its effects) that the constraints allow."""
        pinned = np.broadcast_to(self.pinned, self.effects.shape[:2])
        return [
            [
                (row, by_hand)
                for row in rows_with(must)
                if np.isfinite(by_hand := effects_by_hand(effects, row)).all()
            ]
            for effects, must in zip(self.effects, pinned, strict=True)
        ]


def pinned_together(problem: Problem) -> Rows:
    return np.array([any(of) for of in np.atleast_2d(problem.pinned).T])


def rows_with(pinned: Rows):
    for tail in itertools.product((False, True), repeat=len(pinned) - 1):
        row = np.array((True, *tail))
        if row[pinned].all():
            yield row


def effects_by_hand(effects: Array, row: Rows):
    """Return the effects of a row by the definition, one evaluation at a time."""
    result, computed = [], []
    for i, compute in enumerate(row):
        if compute:
            computed.append(i)
            result.append(0.0)
            continue
        a = i - computed[-1]
        b = computed[-1] - computed[-2] if len(computed) > 1 else 0
        known = a <= effects.shape[1] and b < effects.shape[2]
        result.append(effects[i, a - 1, b] if known else np.inf)
    return np.array(result)


def make_problem(
    seed: int,
    *,
    groups: int,
    evaluations: int,
    longest: int,
    largest: int = 9,
    forbidden: float = 0.0,
    pins: float = 0.0,
):
    """Return a problem whose entries that no row can reach are nonsense."""
    rng = np.random.default_rng(seed)
    shape = (groups, evaluations, longest, longest + 2)
    effects = rng.integers(0, largest, size=shape, endpoint=True).astype(float)
    effects[rng.random(shape) < forbidden] = np.inf
    for i, a, b in itertools.product(*map(range, shape[1:])):
        p = i - (a + 1)
        if p < 0 or (b == 0) != (p == 0) or b > p:
            effects[:, i, a, b] = rng.choice([np.nan, -1.0, 1e200])
    pinned = rng.random((groups, evaluations) if seed % 2 else evaluations) < pins
    prices = rng.integers(1, 5, size=groups).astype(float)
    return Problem(effects=effects, prices=prices, pinned=pinned)


small = st.builds(
    make_problem,
    st.integers(0, 2**32),
    groups=st.integers(1, 3),
    evaluations=st.integers(1, 8),
    longest=st.integers(1, 3),
    largest=st.sampled_from([0, 1, 9, 10**6]),
    forbidden=st.sampled_from([0.0, 0.3]),
    pins=st.sampled_from([0.0, 0.2]),
)
fractions = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.6, 0.9, 1.0])


def least_by_count(candidates: Candidates):
    """Return the least effect of each count of computed evaluations that occurs."""
    least = {}
    for row, effects in candidates:
        count = int(row.sum())
        least[count] = min(least.get(count, np.inf), effects.sum())
    return least


def best_effect(problem: Problem, budget: float):
    """Return the least total effect within the budget, from all combinations of counts."""
    least = {0.0: 0.0}
    for price, candidates in zip(problem.prices, problem.candidates(), strict=True):
        sums = {}
        for (spent, effect), (count, more) in itertools.product(
            least.items(), least_by_count(candidates).items()
        ):
            now = spent + price * count
            if now <= budget:
                sums[now] = min(sums.get(now, np.inf), effect + more)
        least = sums
    return min(least.values())


def largest_step(problem: Problem):
    """Return the largest difference in effect between neighbours on a group's convex hull."""
    steps = [0.0]
    for candidates in problem.candidates():
        points = sorted(least_by_count(candidates).items())
        hull = []
        for point in points:
            while len(hull) > 1 and not is_below(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        steps += [one[1] - next_[1] for one, next_ in itertools.pairwise(hull)]
    return max(steps)


def is_below(left: Point, middle: Point, right: Point):
    rise = (right[1] - left[1]) * (middle[0] - left[0])
    return (middle[1] - left[1]) * (right[0] - left[0]) < rise


# ---------------------------------------------------------------------------- effects


@FEW
@given(small, st.integers(0, 2**32))
def test_effects_of_any_rows_are_those_of_the_definition(problem: Problem, seed: int):
    rows = np.random.default_rng(seed).random(problem.effects.shape[:2]) < 0.4
    rows[:, 0] = True
    expected = np.stack(
        [effects_by_hand(*pair) for pair in zip(problem.effects, rows, strict=True)]
    )
    np.testing.assert_array_equal(effects_of(problem.effects, rows), expected)
    np.testing.assert_array_equal(effect_of(problem.effects, rows), expected.sum(axis=1))


@FEW
@given(small)
def test_least_spend_is_that_of_the_fewest_computed(problem: Problem):
    fewest = [min(row.sum() for row, _ in candidates) for candidates in problem.candidates()]
    expected = (problem.prices * fewest).sum()
    assert least_spend(problem.effects, problem.prices, problem.pinned) == expected


# ---------------------------------------------------------------------------- multiplier


@FEW
@given(small, st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0, 1e9]))
def test_cheapest_row_is_the_first_of_the_best(problem: Problem, multiplier: float):
    rows = cheapest(problem.effects, problem.prices, multiplier, problem.pinned)
    for row, price, candidates in zip(rows, problem.prices, problem.candidates(), strict=True):
        ranked = (
            (effects.sum() + multiplier * price * one.sum(), one.sum(), tuple(one))
            for one, effects in candidates
        )
        assert tuple(row) == min(ranked)[2]


# ---------------------------------------------------------------------------- budget


@FEW
@given(small, fractions)
def test_within_budget_is_the_best_of_all_plans(problem: Problem, fraction: float):
    budget = problem.budget(fraction)
    rows = within_budget(problem.effects, problem.prices, problem.pinned, budget)
    assert rows[:, 0].all()
    assert rows[np.broadcast_to(problem.pinned, rows.shape)].all()
    assert spend(problem.prices, rows) <= budget
    assert effect_of(problem.effects, rows).sum() == best_effect(problem, budget)


def test_within_budget_of_three_groups_is_the_best_of_all_plans():
    for seed in (*range(20), 61, 76, 164, 215):  # the last need most of the duality gap
        problem = make_problem(seed, groups=3, evaluations=8, longest=3, largest=30)
        budget = problem.budget(0.1 + 0.6 * (seed % 25) / 25)
        rows = within_budget(problem.effects, problem.prices, problem.pinned, budget)
        assert effect_of(problem.effects, rows).sum() == best_effect(problem, budget)


@pytest.mark.parametrize("scale", [1e-58, 1e-20, 1e50])
def test_within_budget_does_not_depend_on_the_scale(scale: float):
    problem = make_problem(3, groups=3, evaluations=8, longest=3)
    budget = problem.budget(0.4)
    rows = within_budget(scale * problem.effects, problem.prices, problem.pinned, budget)
    assert effect_of(problem.effects, rows).sum() == best_effect(problem, budget)


def test_within_budget_finds_prices_of_different_scales_at_once():
    problem = make_problem(5, groups=3, evaluations=8, longest=2)
    scales = np.array([1.0, 2.0**-30, 0.0])
    effects = problem.effects * scales[:, None, None, None]
    scaled = Problem(effects=effects, prices=problem.prices, pinned=problem.pinned)
    for fraction in (0.2, 0.5, 0.8):
        budget = scaled.budget(fraction)
        rows = within_budget(effects, problem.prices, problem.pinned, budget)
        assert effect_of(effects, rows).sum() == best_effect(scaled, budget)
    np.testing.assert_array_equal(
        rows[2], cheapest(effects, problem.prices, 1.0, problem.pinned)[2]
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), fractions, st.sampled_from([1, 9, 10**6]))
def test_many_groups_stay_within_one_step_of_the_best(seed: int, fraction: float, largest: int):
    problem = make_problem(seed, groups=40, evaluations=5, longest=2, largest=largest)
    budget = problem.budget(fraction)
    rows = within_budget(problem.effects, problem.prices, problem.pinned, budget)
    effect = effect_of(problem.effects, rows).sum()
    best = best_effect(problem, budget)
    assert spend(problem.prices, rows) <= budget
    assert best <= effect <= best + largest_step(problem)


def test_no_price_does_better_within_the_budget():
    problem = make_problem(11, groups=40, evaluations=12, longest=3, forbidden=0.1)
    budget = problem.budget(0.3)
    rows = within_budget(problem.effects, problem.prices, problem.pinned, budget)
    effect = effect_of(problem.effects, rows).sum()
    tried = 0
    for multiplier in np.geomspace(1e-3, 1e3, 50):
        other = cheapest(problem.effects, problem.prices, multiplier, problem.pinned)
        if spend(problem.prices, other) <= budget:
            tried += 1
            assert effect <= effect_of(problem.effects, other).sum()
    assert 0 < tried < 50


def test_more_budget_is_never_worse_with_few_groups_nor_much_with_many():
    for groups, tolerance in ((4, 0.0), (40, 1.0)):
        problem = make_problem(2, groups=groups, evaluations=7, longest=3, forbidden=0.1)
        plans = [
            within_budget(problem.effects, problem.prices, problem.pinned, problem.budget(part))
            for part in np.linspace(0.0, 1.0, 12)
        ]
        effects = [effect_of(problem.effects, rows).sum() for rows in plans]
        slack = tolerance * largest_step(problem)
        assert all(more <= less + slack for less, more in itertools.pairwise(effects))
        assert effects[-1] < effects[0]


@pytest.mark.parametrize("groups", [5, 16, 24])
def test_weights_in_seconds_are_never_overspent(groups: int):
    """Budgets that whole plans meet but for rounding: 0.1 + 0.2 is above 0.3."""
    problem = make_problem(6, groups=groups, evaluations=5, longest=2, largest=3)
    tenths = np.random.default_rng(1).integers(1, 5, size=groups)
    prices = np.asarray(0.1 * tenths, np.float64)
    for count in range(2 * tenths.sum() + 1, 5 * tenths.sum(), 3):
        budget = count / 10
        rows = within_budget(problem.effects, prices, problem.pinned, budget)
        assert spend(prices, rows) <= budget


@pytest.mark.parametrize("limit", [1, 2])
def test_weights_in_seconds_are_never_overspent_by_shared_rows(limit: int):
    problem = make_problem(6, groups=7, evaluations=4, longest=2, largest=3)
    prices = np.full(7, 0.1)
    for count in range(15, 28):
        budget = count / 10
        rows = at_most_rows(problem.effects, prices, problem.pinned, budget, limit)
        assert spend(prices, rows) <= budget


@pytest.mark.parametrize("families", [1, 2])
def test_shared_rows_meet_the_least_possible_to_the_last_bit(families: int):
    """Sums over families of groups round otherwise than sums over groups."""
    problem = make_problem(6, groups=families, evaluations=7, longest=2)
    effects = np.repeat(problem.effects, 6, axis=0)
    for seed in range(10):
        prices = np.random.default_rng(seed).random(6 * families)
        budget = least_spend(effects, prices, problem.pinned)
        rows = at_most_rows(effects, prices, problem.pinned, budget, 3)
        assert spend(prices, rows) <= budget


def test_groups_that_gain_only_when_all_is_computed_get_all_or_nothing():
    """Of 25 such groups the budget is enough for 20, and 2 evaluations that help nobody."""
    effects = np.full((25, 4, 3, 5), 100.0)
    effects[:, 1:, :, 0] = np.array([[9.0], [0.0], [0.0]])
    prices, pinned = np.ones(25), np.zeros(4, bool)
    rows = within_budget(effects, prices, pinned, 25.0 + 20 * 3 + 2)
    assert effect_of(effects, rows).sum() == 5 * 9.0
    assert spend(prices, rows) <= 87.0


def test_no_single_evaluation_that_still_fits_would_help():
    """One group is worth its price but does not fit; the rest is more than 16 groups can use."""
    problem = make_problem(4, groups=40, evaluations=8, longest=3)
    effects, prices = problem.effects.copy(), np.append(np.ones(39), 300.0)
    effects[39] = np.where(effects[39] > 0.0, 1e4 * effects[39], effects[39])
    budget = least_spend(effects, prices, problem.pinned) + 200.0
    rows = within_budget(effects, prices, problem.pinned, budget)
    assert spend(prices, rows) <= budget
    effect = effect_of(effects, rows).sum()
    for group, i in np.argwhere(~rows):
        more = rows.copy()
        more[group, i] = True
        if spend(prices, more) <= budget:
            assert effect_of(effects, more).sum() >= effect


# ---------------------------------------------------------------------------- count


@FEW
@given(small)
def test_exact_count_is_the_best_of_every_count(problem: Problem):
    effects, pinned = problem.effects[0], np.atleast_2d(problem.pinned)[0]
    evaluations = len(effects)
    least = least_by_count(problem.candidates()[0])
    for count in range(min(least), evaluations + 1):
        at_most = exact_count(effects, pinned, count, fewer=True)
        best = min(effect for other, effect in least.items() if other <= count)
        fewest = min(other for other, effect in least.items() if effect == best)
        assert at_most is not None
        assert effect_of(effects[None], at_most[None])[0] == best
        assert at_most.sum() == fewest
        row = exact_count(effects, pinned, count)
        assert (row is None) == (count not in least)
        if row is not None:
            assert row.sum() == count
            assert row[pinned].all()
            assert effect_of(effects[None], row[None])[0] == least[count]


# ---------------------------------------------------------------------------- largest effect


@FEW
@given(small, fractions)
def test_minimax_is_the_least_largest_effect_and_then_the_least_sum(
    problem: Problem, fraction: float
):
    budget = problem.budget(fraction)
    rows = minimax(problem.effects, problem.prices, problem.pinned, budget)
    assert spend(problem.prices, rows) <= budget
    candidates = problem.candidates()
    thresholds = sorted({float(e.max()) for group in candidates for _, e in group})

    def least_spend_below(threshold: float):
        fewest = [
            min((row.sum() for row, e in group if e.max() <= threshold), default=np.inf)
            for group in candidates
        ]
        return (problem.prices * fewest).sum()

    best = next(t for t in thresholds if least_spend_below(t) <= budget)
    assert effects_of(problem.effects, rows).max() == best
    below = np.where(problem.effects <= best, problem.effects, np.inf)
    allowed = Problem(effects=below, prices=problem.prices, pinned=problem.pinned)
    assert effect_of(problem.effects, rows).sum() == best_effect(allowed, budget)


# ---------------------------------------------------------------------------- distinct rows


@FEW
@given(small, fractions)
def test_one_row_for_all_is_the_best_of_all_rows(problem: Problem, fraction: float):
    pinned = pinned_together(problem)
    together = problem.effects.sum(axis=0)
    price = problem.prices.sum()
    one = Problem(effects=together[None], prices=np.array([price]), pinned=pinned)
    budget = one.budget(fraction)
    rows = at_most_rows(problem.effects, problem.prices, pinned, budget, 1)
    assert (rows == rows[0]).all()
    assert spend(problem.prices, rows) <= budget
    assert effect_of(problem.effects, rows).sum() == best_effect(one, budget)
    planned = within_budget(one.effects, one.prices, pinned, budget)
    np.testing.assert_array_equal(rows[:1], planned)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), fractions, st.sampled_from([0.0, 0.1]))
def test_distinct_rows_are_limited_and_between_one_and_unlimited(
    seed: int, limit: int, fraction: float, forbidden: float
):
    problem = make_problem(seed, groups=8, evaluations=7, longest=2, forbidden=forbidden)
    arguments = problem.effects, problem.prices, problem.pinned
    one = Problem(
        effects=problem.effects.sum(axis=0)[None],
        prices=problem.prices.sum(keepdims=True),
        pinned=pinned_together(problem),
    )
    budget = one.budget(fraction)
    rows = at_most_rows(*arguments, budget, limit)
    assert len(np.unique(rows, axis=0)) <= limit
    assert spend(problem.prices, rows) <= budget
    effect = effect_of(problem.effects, rows).sum()
    assert effect <= effect_of(problem.effects, at_most_rows(*arguments, budget, 1)).sum()
    assert effect >= effect_of(problem.effects, within_budget(*arguments, budget)).sum()


@FEW
@given(small, fractions)
def test_a_limit_of_all_groups_is_no_limit(problem: Problem, fraction: float):
    arguments = problem.effects, problem.prices, problem.pinned, problem.budget(fraction)
    np.testing.assert_array_equal(
        at_most_rows(*arguments, len(problem.effects)), within_budget(*arguments)
    )


@pytest.mark.parametrize("seed", [14, 40, 52])
def test_a_plan_that_has_few_rows_anyway_is_kept(seed: int):
    problem = make_problem(seed, groups=6, evaluations=5, longest=2)
    arguments = problem.effects, problem.prices, problem.pinned, problem.budget(0.1)
    free = within_budget(*arguments)
    assert len(np.unique(free, axis=0)) == 3
    rows = at_most_rows(*arguments, 3)
    assert effect_of(problem.effects, rows).sum() == effect_of(problem.effects, free).sum()


def test_two_families_of_groups_get_the_two_rows_they_need():
    """Groups that may only fill early or only late, with noise: one row each is the best of two."""
    rng = np.random.default_rng(0)
    early = np.array([1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1], bool)
    late = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0], bool)
    effects = 50.0 + rng.random((20, 12, 2, 4))
    effects[:10, ~early] -= 49.0
    effects[10:, ~late] -= 49.0
    pinned = np.zeros(12, bool)
    rows = at_most_rows(effects, np.ones(20), pinned, 20 * 8.0, 2)
    np.testing.assert_array_equal(rows[:10], np.tile(early, (10, 1)))
    np.testing.assert_array_equal(rows[10:], np.tile(late, (10, 1)))


def test_a_budget_that_needs_more_rows_than_the_limit_is_refused():
    effects = np.full((3, 5, 1, 3), 1.0)
    pinned = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 0, 1, 1, 0]], bool)
    rows = at_most_rows(effects, np.ones(3), pinned, 9.0, 3)
    np.testing.assert_array_equal(rows, pinned)
    with pytest.raises(ScheduleError, match=r"budget 10\.0 was not met with 2 distinct rows for 3"):
        at_most_rows(effects, np.ones(3), pinned, 10.0, 2)
    rows = at_most_rows(effects, np.ones(3), pinned, 11.0, 2)
    assert rows[pinned].all()
    assert spend(np.ones(3), rows) == 11.0
    assert len(np.unique(rows, axis=0)) == 2


# ---------------------------------------------------------------------------- bad input

EFFECTS = np.ones((2, 5, 2, 4))
PRICES = np.ones(2)
PINNED = np.zeros(5, bool)
ROWS = np.ones((2, 5), bool)


def with_entry(value: float):
    effects = EFFECTS.copy()
    effects[1, 4, 0, 2] = value
    return effects


@pytest.mark.parametrize(
    ("effects", "prices", "pinned", "message"),
    [
        (np.ones((5, 2, 4)), PRICES, PINNED, r"effects must be \(G, E, A, A \+ 2\) and not empty"),
        (np.ones((2, 5, 2, 3)), PRICES, PINNED, r"got \(2, 5, 2, 3\)"),
        (np.ones((0, 5, 2, 4)), PRICES, PINNED, r"got \(0, 5, 2, 4\)"),
        (np.ones((2, 5, 0, 2)), PRICES, PINNED, r"got \(2, 5, 0, 2\)"),
        (with_entry(np.nan), PRICES, PINNED, r"got nan at \[1, 4, 0, 2\]"),
        (with_entry(-1e-9), PRICES, PINNED, r"got -1e-09 at \[1, 4, 0, 2\]"),
        (with_entry(1e61), PRICES, PINNED, r"effects must be from 0 to 1e\+60, or infinite"),
        (EFFECTS, np.ones(3), PINNED, r"prices must be \(2,\), one per group, got \(3,\)"),
        (EFFECTS, np.array([1.0, 0.0]), PINNED, r"prices must be above 0 .* got \[1. 0.\]"),
        (EFFECTS, np.array([1.0, np.nan]), PINNED, "prices must be above 0"),
        (EFFECTS, PRICES, np.zeros(4, bool), r"pinned must be bool \(5,\) or \(2, 5\), got bool"),
        (EFFECTS, PRICES, np.zeros(5, int), r"got int64 \(5,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_every_plan(
    effects: Array, prices: Array, pinned: Rows, message: str
):
    for plan in (
        lambda: within_budget(effects, prices, pinned, 10.0),
        lambda: minimax(effects, prices, pinned, 10.0),
        lambda: at_most_rows(effects, prices, pinned, 10.0, 1),
    ):
        with pytest.raises(ScheduleError, match=message) as caught:
            plan()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", [3.9, -1.0, np.nan])
def test_a_budget_below_the_least_possible_is_refused(budget: float):
    message = rf"budget {budget} is below 4\.0, the least possible with fills of at most 2"
    for plan in (within_budget, minimax, partial(at_most_rows, limit=1)):
        with pytest.raises(ScheduleError, match=message):
            plan(EFFECTS, PRICES, PINNED, budget)
        assert spend(PRICES, plan(EFFECTS, PRICES, PINNED, 4.0)) == 4.0


def test_a_budget_without_end_gives_the_least_effect():
    assert within_budget(EFFECTS, PRICES, PINNED, np.inf).all()


def test_a_limit_below_one_is_refused():
    with pytest.raises(ScheduleError, match=r"limit, the number of distinct rows, .* got 0"):
        at_most_rows(EFFECTS, PRICES, PINNED, 10.0, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:, :4], r"rows must be bool \(2, 5\), got bool \(2, 4\)"),
        (ROWS.astype(int), r"got int64 \(2, 5\)"),
        (~ROWS, "every row must compute evaluation 0"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: Rows, message: str):
    with pytest.raises(ScheduleError, match=message):
        effects_of(EFFECTS, rows)
