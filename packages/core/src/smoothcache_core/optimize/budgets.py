"""Plans within a budget, each group with a row of its own: what `within_budget` does.

`plan_within` bisects the price of the Lagrangian and improves what that leaves. Its parts that
also serve for rows that groups share (`shared_rows.py`) stand alone: `plan_one_row`, `top_price`,
`bisect_price` and `move_towards`. Shapes are those of `costs.py` and `segments.py`.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from smoothcache_core.numerics.arrays import Array, Indices, Rows
from smoothcache_core.optimize.costs import effect_of, spend
from smoothcache_core.optimize.segments import row_of_count, solve_priced, sums_by_count

Plan = TypeVar("Plan")


_EXCHANGED = 16


_MOST_PLANS = 20_000


def plan_within(effects: Array, stretches: Array, weights: Array, budget: float) -> Rows:
    """Return the plan, (G, E), of `within_budget`; the budget is known to be feasible.

    Args:
        effects: (G, E, A, A + 2).
        stretches: Those of `effects`, (E, A + 1, A + 2, G).
        weights: (G,).
        budget: Most that `spend` may be.
    """

    def solve(price: float, within: Rows, over: Rows) -> Rows:
        # A row that is best at two prices is best between them.
        open_ = (within != over).any(axis=1)
        part = stretches if open_.all() else np.compress(open_, stretches, axis=-1)
        rows = within.copy()
        rows[open_] = solve_priced(part, price * weights[open_])
        return rows

    if len(weights) == 1:
        row = plan_one_row(stretches[..., 0], weights, budget)
        assert row is not None, "the budget is feasible"
        return row[None]
    top = top_price(stretches, weights)
    ends = solve_priced(stretches, top * weights), solve_priced(stretches, 0.0 * weights)
    within, over = bisect_price(solve, lambda rows: spend(weights, rows) <= budget, top, *ends)
    saved = effect_of(effects, within) - effect_of(effects, over)
    rows = move_towards(saved, weights, within, over, budget)
    rows = _exchange(effects, stretches, weights, rows, over, budget)
    return _add_single(effects, weights, rows, budget)


def plan_one_row(stretches: Array, weights: Array, budget: float) -> Rows | None:
    """Return the best row, (E,), for groups of the given weights; None if the budget has none.

    `stretches` is (E, A + 1, A + 2), summed over the groups.
    """
    counts = range(1, len(stretches) + 1)
    count = sum(float((weights * count).sum()) <= budget for count in counts)
    sums = sums_by_count(stretches, count)
    best = int(sums[0, 0].argmin())
    return None if np.isinf(sums[0, 0, best]) else row_of_count(stretches, sums, best)


def top_price(stretches: Array, weights: Array) -> float:
    """Return a price above which nothing is computed that does not have to be."""
    largest = stretches.max(axis=(0, 1, 2), where=np.isfinite(stretches), initial=0.0)
    return float((2.0 * len(stretches) * largest / weights).max()) or 1.0


def bisect_price(
    solve: Callable[[float, Plan, Plan], Plan],
    fits: Callable[[Plan], bool],
    top: float,
    within: Plan,
    over: Plan,
    halvings: int = 64,
) -> tuple[Plan, Plan]:
    """Return the plans just within and just over, from `within` at price `top`, `over` at price 0.

    Bisects the 64 bits of the price, which order positive numbers as their values do: the exponent
    is found first, so any scale is met, and the end are two neighbouring numbers.
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


def move_towards(saved: Array, weights: Array, within: Rows, over: Rows, budget: float) -> Rows:
    """Return `within` with rows of `over` while they fit, those first that save most per weight.

    `saved`, (G,), is how much lower a group's effect is with the row of `over`.
    """
    cost = weights * (over.sum(axis=1) - within.sum(axis=1))
    ratio = saved / np.maximum(cost, np.finfo(np.float64).tiny ** 0.5)
    rows = within.copy()
    for group in np.argsort(-ratio, kind="stable"):
        if saved[group] > 0.0:
            rows[group] = over[group]
            if spend(weights, rows) > budget:
                rows[group] = within[group]
    return rows


def _exchange(
    effects: Array, stretches: Array, weights: Array, rows: Rows, over: Rows, budget: float
) -> Rows:
    """Return `rows` with the best counts for up to 16 groups, those that differ from `over` first.

    With F_g(k) the least effect of k computed evaluations, and the slack of k its distance from the
    least of F_g(k) + price * weight * k, no plan whose slacks add up to more than the duality gap
    can be better. Only the others are tried.
    """
    some = np.argsort((rows == over).all(axis=1), kind="stable")[:_EXCHANGED]
    saved = float((effect_of(effects, rows) - effect_of(effects, over)).sum())
    cost = spend(weights, over) - spend(weights, rows)
    if saved <= 0.0 or cost <= 0.0:
        return rows
    part = [stretches[..., group] for group in some]
    sums = [sums_by_count(stretches_of_one, len(stretches)) for stretches_of_one in part]
    counts = _best_counts(
        np.stack([of_one[0, 0] for of_one in sums]),
        weights[some],
        saved / cost,
        budget - spend(weights, rows) + spend(weights[some], rows[some]),
        float(effect_of(effects[some], rows[some]).sum()),
    )
    if counts is None:
        return rows
    result = rows.copy()
    result[some] = [row_of_count(*of_one) for of_one in zip(part, sums, counts, strict=True)]
    return result if spend(weights, result) <= budget else rows


def _best_counts(
    least: Array, weights: Array, price: float, budget: float, known: float
) -> Indices | None:
    """Return the counts, (G,), of the least effect below `known`; None if there are none.

    Group after group is added to the list of plans so far, less those that another one dominates.

    Args:
        least: (G, E + 1), the least effect of each count, infinite where there is none.
        weights: (G,).
        price: Any; the nearer to the best multiplier, the fewer plans are tried.
        budget: Most that the sum of weights * counts may be.
        known: Effect of a known plan.
    """
    cost: Array = weights[:, None] * np.arange(least.shape[1])
    lagrangian = least + price * cost
    lowest = lagrangian.min(axis=1, keepdims=True)
    slack = lagrangian - lowest
    gap = known - float(lowest.sum() - price * budget)
    fewest = np.where(np.isfinite(least), cost, np.inf).min(axis=1)
    plans = np.zeros((1, 0), dtype=np.int64)
    spent, effect, above = np.zeros(1), np.zeros(1), np.zeros(1)
    for group in range(len(weights)):
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


def _add_single(effects: Array, weights: Array, rows: Rows, budget: float) -> Rows:
    """Return `rows` with single evaluations added that save most per weight, while they fit."""
    rows = rows.copy()
    fits = weights <= budget - spend(weights, rows)
    saved = np.zeros(rows.shape)
    for group in np.flatnonzero(fits):
        saved[group] = _saved_by_each(effects[group], rows[group])
    while fits.any():
        ratio = np.where(fits[:, None], saved / weights[:, None], 0.0)
        group, i = np.unravel_index(ratio.argmax(), ratio.shape)
        if ratio[group, i] <= 0.0:
            break
        rows[group, i] = True
        if spend(weights, rows) <= budget:
            saved[group] = _saved_by_each(effects[group], rows[group])
        else:
            rows[group, i] = fits[group] = False
    return rows


def _saved_by_each(effects: Array, row: Rows) -> Array:
    """Return (E,): how much lower the effect of one group's row is with evaluation i computed."""
    changed = row | np.eye(len(row), dtype=np.bool_)
    now = effect_of(effects[None], row[None])
    return now - effect_of(np.broadcast_to(effects, (len(row), *effects.shape)), changed)
