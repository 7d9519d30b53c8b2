"""Plans within a budget, each group with a row of its own: what `within_budget` does.

This is a multiple-choice knapsack: of every group one row is taken, and what all of them spend is
bounded (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11). It is solved by
Lagrangian relaxation: with a multiplier for what is spent, groups are independent and each is a
shortest path (`segments.py`). `plan_within` bisects the multiplier, goes greedily from the plan
just within the budget towards the one just over it, and closes what is left of the duality gap by
dominance lists over the counts of a few groups. Its parts that also serve for rows that groups
share (`shared_rows.py`) stand alone: `plan_one_row`, `top_multiplier`, `bisect_multiplier` and
`move_towards`. Shapes are those of `costs.py` and `segments.py`.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from smoothcache_core.numerics.arrays import Array, Indices, Rows
from smoothcache_core.optimize.costs import effect_of, spend
from smoothcache_core.optimize.segments import row_of_count, solve_lagrangian, sums_by_count

Plan = TypeVar("Plan")


_EXCHANGED = 16
"""Groups of the core problem, whose counts are enumerated: those whose rows differ between the
plans just within and just over the budget come first. The lists grow with every group; with up to
16 groups the core is the whole problem, and the plan is exact."""


_MOST_PLANS = 20_000
"""Plans kept at once, those nearest to the Lagrangian bound: 2.6 MB of counts, where counts that
are as good as equal would make lists without end."""


def plan_within(effects: Array, segments: Array, prices: Array, budget: float) -> Rows:
    """Return the plan, (G, E), of `within_budget`; the budget is known to be feasible.

    Args:
        effects: (G, E, A, A + 2).
        segments: Those of `effects`, (E, A + 1, A + 2, G).
        prices: (G,).
        budget: Most that `spend` may be.
    """

    def solve(multiplier: float, within: Rows, over: Rows) -> Rows:
        # A row that is best at two multipliers is best between them.
        open_ = (within != over).any(axis=1)
        part = segments if open_.all() else np.compress(open_, segments, axis=-1)
        rows = within.copy()
        rows[open_] = solve_lagrangian(part, multiplier * prices[open_])
        return rows

    if len(prices) == 1:
        row = plan_one_row(segments[..., 0], prices, budget)
        assert row is not None, "the budget is feasible"
        return row[None]
    top = top_multiplier(segments, prices)
    ends = solve_lagrangian(segments, top * prices), solve_lagrangian(segments, 0.0 * prices)
    within, over = bisect_multiplier(solve, lambda rows: spend(prices, rows) <= budget, top, *ends)
    saved = effect_of(effects, within) - effect_of(effects, over)
    rows = move_towards(saved, prices, within, over, budget)
    rows = _exchange(effects, segments, prices, rows, over, budget)
    return _add_single(effects, prices, rows, budget)


def plan_one_row(segments: Array, prices: Array, budget: float) -> Rows | None:
    """Return the best row, (E,), for groups of the given prices; None if the budget has none.

    `segments` is (E, A + 1, A + 2), summed over the groups.
    """
    counts = range(1, len(segments) + 1)
    count = sum(float((prices * count).sum()) <= budget for count in counts)
    sums = sums_by_count(segments, count)
    best = int(sums[0, 0].argmin())
    return None if np.isinf(sums[0, 0, best]) else row_of_count(segments, sums, best)


def top_multiplier(segments: Array, prices: Array) -> float:
    """Return a multiplier above which nothing is computed that does not have to be."""
    largest = segments.max(axis=(0, 1, 2), where=np.isfinite(segments), initial=0.0)
    return float((2.0 * len(segments) * largest / prices).max()) or 1.0


def bisect_multiplier(
    solve: Callable[[float, Plan, Plan], Plan],
    fits: Callable[[Plan], bool],
    top: float,
    within: Plan,
    over: Plan,
    halvings: int = 64,
) -> tuple[Plan, Plan]:
    """Return the plans just within and just over the budget.

    Bisects the 64 bits of the multiplier, read as a whole number: positive floats are ordered as
    their bits are. So the exponent is found first, effects of any scale are met in 64 halvings, and
    the end are two neighbouring floats, between which no other plan can lie.

    Args:
        solve: Gives the best plan for a multiplier, between the plans within and over so far.
        fits: Whether a plan keeps to the budget.
        top: A multiplier whose plan, `within`, is known to fit.
        within: Plan of `top`.
        over: Plan of multiplier 0, the largest.
        halvings: The most, 64 for all bits.
    """
    low, high = 0, int(np.float64(top).view(np.int64))
    if fits(over):
        return over, over
    while high - low > 1 and halvings:
        halvings -= 1
        middle = (low + high) // 2
        plan = solve(float(np.int64(middle).view(np.float64)), within, over)
        if fits(plan):
            within, high = plan, middle
        else:
            over, low = plan, middle
    return within, over


def move_towards(saved: Array, prices: Array, within: Rows, over: Rows, budget: float) -> Rows:
    """Return `within` with rows of `over` while they fit, (G, E).

    Groups come by cost reduction per unit of price, best first: the greedy step of the
    multiple-choice knapsack.

    Args:
        saved: How much lower a group's effect is with the row of `over`, (G,).
        prices: (G,).
        within: Rows that keep to the budget, (G, E).
        over: Rows that do not, (G, E).
        budget: Most that `spend` may be.
    """
    cost = prices * (over.sum(axis=1) - within.sum(axis=1))
    ratio = saved / np.maximum(cost, np.finfo(np.float64).tiny ** 0.5)
    rows = within.copy()
    for group in np.argsort(-ratio, kind="stable"):
        if saved[group] > 0.0:
            rows[group] = over[group]
            if spend(prices, rows) > budget:
                rows[group] = within[group]
    return rows


def _exchange(
    effects: Array, segments: Array, prices: Array, rows: Rows, over: Rows, budget: float
) -> Rows:
    """Return `rows` with the best counts for up to 16 groups, those that differ from `over` first.

    With F_g(k) the least effect of k computed evaluations, and the slack of k its distance from the
    least of F_g(k) + multiplier * price * k, no plan whose slacks add up to more than the duality
    gap can be better. Only the others are tried.
    """
    some = np.argsort((rows == over).all(axis=1), kind="stable")[:_EXCHANGED]
    saved = float((effect_of(effects, rows) - effect_of(effects, over)).sum())
    cost = spend(prices, over) - spend(prices, rows)
    if saved <= 0.0 or cost <= 0.0:
        return rows
    part = [segments[..., group] for group in some]
    sums = [sums_by_count(segments_of_one, len(segments)) for segments_of_one in part]
    counts = _best_counts(
        np.stack([of_one[0, 0] for of_one in sums]),
        prices[some],
        saved / cost,
        budget - spend(prices, rows) + spend(prices[some], rows[some]),
        float(effect_of(effects[some], rows[some]).sum()),
    )
    if counts is None:
        return rows
    result = rows.copy()
    result[some] = [row_of_count(*of_one) for of_one in zip(part, sums, counts, strict=True)]
    return result if spend(prices, result) <= budget else rows


def _best_counts(
    least: Array, prices: Array, multiplier: float, budget: float, known: float
) -> Indices | None:
    """Return the counts, (G,), of the least effect below `known`; None if there are none.

    Group after group is added to the list of plans so far, less those that another one dominates
    (Nemhauser and Ullmann).

    Args:
        least: (G, E + 1), the least effect of each count, infinite where there is none.
        prices: (G,).
        multiplier: Any; the nearer to the best multiplier, the fewer plans are tried.
        budget: Most that the sum of prices * counts may be.
        known: Effect of a known plan.
    """
    cost: Array = prices[:, None] * np.arange(least.shape[1])
    lagrangian = least + multiplier * cost
    lowest = lagrangian.min(axis=1, keepdims=True)
    slack = lagrangian - lowest
    gap = known - float(lowest.sum() - multiplier * budget)
    fewest = np.where(np.isfinite(least), cost, np.inf).min(axis=1)
    plans = np.zeros((1, 0), dtype=np.int64)
    spent, effect, above = np.zeros(1), np.zeros(1), np.zeros(1)
    for group in range(len(prices)):
        most = budget - fewest[group + 1 :].sum()
        near = (above[:, None] + slack[group] <= gap) & (spent[:, None] + cost[group] <= most)
        plan, k = np.nonzero(near)
        plans = np.column_stack([plans[plan], k])
        spent, effect = spent[plan] + cost[group, k], effect[plan] + least[group, k]
        above = above[plan] + slack[group, k]
        kept = _undominated(spent, effect)
        kept = kept[np.argsort(above[kept], kind="stable")[:_MOST_PLANS]]
        plans, spent, effect, above = plans[kept], spent[kept], effect[kept], above[kept]
    if not len(plans) or effect.min() >= known:
        return None
    return plans[effect.argmin()]


def _undominated(spent: Array, effect: Array) -> Indices:
    """Return which plans have a lower effect than all that spend as little."""
    order = np.lexsort((effect, spent))
    before = np.minimum.accumulate(np.concatenate([[np.inf], effect[order][:-1]]))
    return order[effect[order] < before]


def _add_single(effects: Array, prices: Array, rows: Rows, budget: float) -> Rows:
    """Return `rows` with single evaluations added while they fit, most saved per price first."""
    rows = rows.copy()
    fits = prices <= budget - spend(prices, rows)
    saved = np.zeros(rows.shape)
    for group in np.flatnonzero(fits):
        saved[group] = _saved_by_each(effects[group], rows[group])
    while fits.any():
        ratio = np.where(fits[:, None], saved / prices[:, None], 0.0)
        group, i = np.unravel_index(ratio.argmax(), ratio.shape)
        if ratio[group, i] <= 0.0:
            break
        rows[group, i] = True
        if spend(prices, rows) <= budget:
            saved[group] = _saved_by_each(effects[group], rows[group])
        else:
            rows[group, i] = fits[group] = False
    return rows


def _saved_by_each(effects: Array, row: Rows) -> Array:
    """Return (E,): how much lower the effect of one group's row is with evaluation i computed."""
    changed = row | np.eye(len(row), dtype=np.bool_)
    now = effect_of(effects[None], row[None])
    return now - effect_of(np.broadcast_to(effects, (len(row), *effects.shape)), changed)
