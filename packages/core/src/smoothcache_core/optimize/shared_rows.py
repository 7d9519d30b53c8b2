"""Plans of few distinct rows, which groups share: what `at_most_rows` does.

Starting points choose rows greedily (`_starts`, `_facilities`) and give them to the groups
(`_assign`); then rows are planned anew and given anew in turn (`_alternate`). Shapes are those of
`costs.py` and `segments.py`.
"""

import numpy as np

from smoothcache_core.numerics.arrays import Array, Indices, Rows
from smoothcache_core.optimize.budgets import (
    bisect_multiplier,
    move_towards,
    plan_one_row,
    plan_within,
    top_multiplier,
)
from smoothcache_core.optimize.costs import effect_of, spend
from smoothcache_core.optimize.segments import segments_of, solve_lagrangian

_ROUNDS = 10  # alternations at most; they end as soon as one does not help


_STARTS = 3  # of those that the bisection tried, the best; each is then alternated


_ROUGH = 24  # halvings of a multiplier's 64 bits: the 11 of its exponent, and some


def plan_sharing(
    effects: Array, segments: Array, prices: Array, pinned: Rows, budget: float, limit: int
) -> Rows | None:
    """Return the best plan found, (G, E), of at most `limit` distinct rows; None if there is none.

    The budget is known to be feasible with a row for each group, and `limit` is below G; see
    `at_most_rows`.
    """

    def total(rows: Rows) -> float:
        return float(effect_of(effects, rows).sum())

    plans = [_plan_together(effects, prices, pinned, budget)]
    if limit > 1:
        own = plan_within(effects, segments, prices, budget)
        plans.append(own if len(np.unique(own, axis=0)) <= limit else None)
        starts = sorted(_starts(segments, prices, budget, limit), key=total)[:_STARTS]
        plans += [_alternate(effects, segments, prices, pinned, budget, start) for start in starts]
    return min((rows for rows in plans if rows is not None), key=total, default=None)


def _plan_together(effects: Array, prices: Array, pinned: Rows, budget: float) -> Rows | None:
    """Return the best plan, (G, E), with one row for all groups; None if the budget has none."""
    together = effects.sum(axis=0, keepdims=True)
    segments = segments_of(together, np.array([pinned.any(axis=0)]))
    row = plan_one_row(segments[..., 0], prices, budget)
    return None if row is None else np.repeat(row[None], len(prices), axis=0)


def _starts(segments: Array, prices: Array, budget: float, limit: int) -> list[Rows]:
    """Return plans, (G, E), within the budget, of at most `limit` rows.

    They are those of the multipliers that the bisection tries.

    The last are the cheapest for the groups that share rows at the highest multiplier.
    """
    shared = []

    def solve(multiplier: float, *_: Rows) -> Rows:
        rows = _facilities(segments, prices, multiplier, limit)
        shared.append(np.unique(rows, axis=0))
        return rows

    top = top_multiplier(segments, prices)
    ends = solve(top), solve(0.0)
    bisect_multiplier(solve, lambda rows: spend(prices, rows) <= budget, top, *ends, _ROUGH)
    members, _ = _sharing(ends[0])
    sums = np.stack([segments[..., of].sum(axis=-1) for of in members], axis=-1)
    shared.append(solve_lagrangian(sums, top * np.array([prices[of].sum() for of in members])))
    plans = {rows.tobytes(): _assign(segments, rows, prices, budget) for rows in shared}
    return [rows for rows in plans.values() if rows is not None]


def _sharing(rows: Rows) -> tuple[list[Rows], Indices]:
    """Return for each distinct row which groups have it, (G,), and for each group which row."""
    owner = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return [owner == row for row in range(owner.max() + 1)], owner


def _facilities(segments: Array, prices: Array, multiplier: float, limit: int) -> Rows:
    """Return every group's row, (G, E), of at most `limit` that greedily lower the Lagrangian."""
    together = solve_lagrangian(
        segments.sum(axis=-1, keepdims=True), multiplier * prices.sum(keepdims=True)
    )
    own = np.unique(solve_lagrangian(segments, multiplier * prices), axis=0)
    candidates = np.concatenate([together, own])
    lagrangian = _effects_of_shared(segments, candidates)
    lagrangian += np.outer(candidates.sum(axis=1), multiplier * prices)
    chosen, least = [0], lagrangian[0]
    while len(chosen) < limit:
        sums = np.minimum(lagrangian, least).sum(axis=1)
        best = int(sums.argmin())
        if sums[best] >= least.sum():
            break
        chosen.append(best)
        least = np.minimum(least, lagrangian[best])
    return candidates[chosen][lagrangian[chosen].argmin(axis=0)]


def _assign(segments: Array, shared: Rows, prices: Array, budget: float) -> Rows | None:
    """Return the rows, (G, E), that give each group one of `shared`, (R, E), within the budget.

    Bisects the multiplier, as `within_budget` does. None if the budget is too small for `shared`.
    """
    shared = shared[np.argsort(shared.sum(axis=1), kind="stable")]  # ties go to the cheaper row
    effects = _effects_of_shared(segments, shared)
    cost = np.outer(shared.sum(axis=1), prices)

    def solve(multiplier: float, *_: Indices) -> Indices:
        return (effects + multiplier * cost).argmin(axis=0)

    def fits(owner: Indices) -> bool:
        return spend(prices, shared[owner]) <= budget

    largest = effects.max(axis=0, where=np.isfinite(effects), initial=0.0)
    top = float((2.0 * largest / prices).max()) or 1.0
    ends = solve(top), solve(0.0)
    if not fits(ends[0]):
        return None
    within, over = bisect_multiplier(solve, fits, top, *ends)
    group = np.arange(len(prices))
    saved = effects[within, group] - effects[over, group]
    return move_towards(saved, prices, shared[within], shared[over], budget)


def _effects_of_shared(segments: Array, shared: Rows) -> Array:
    """Return (R, G): the effect of each of the `shared` rows (R, E) in each group."""
    return np.stack([_effect_of_row(segments, row) for row in shared])


def _effect_of_row(segments: Array, row: Rows) -> Array:
    computed = np.flatnonzero(row)
    step = np.diff(computed, append=len(row))
    if step.max() > segments.shape[1]:
        return np.full(segments.shape[-1], np.inf)
    return segments[computed, step - 1, np.diff(computed, prepend=0)].sum(axis=0)


def _alternate(
    effects: Array,
    segments: Array,
    prices: Array,
    pinned: Rows,
    budget: float,
    rows: Rows,
) -> Rows:
    """Return `rows` after planning shared rows anew and assigning them anew, while it helps."""
    total = effect_of(effects, rows).sum()
    for _ in range(_ROUNDS):
        if (rows == rows[0]).all():
            break
        planned = _plan_shared(effects, prices, pinned, budget, rows)
        assigned = _assign(segments, np.unique(planned, axis=0), prices, budget)
        trials = [trial for trial in (planned, assigned) if trial is not None]
        best = min(trials, key=lambda trial: float(effect_of(effects, trial).sum()))
        best_total = effect_of(effects, best).sum()
        if best_total >= total or spend(prices, best) > budget:
            break
        rows, total = best, best_total
    return rows


def _plan_shared(effects: Array, prices: Array, pinned: Rows, budget: float, rows: Rows) -> Rows:
    """Return the plan, (G, E), that is best for the groups that share rows in `rows`."""
    members, owner = _sharing(rows)
    effects_of_clusters = np.stack([effects[of].sum(axis=0) for of in members])
    prices_of_clusters = np.array([prices[of].sum() for of in members])
    pinned_of_clusters = np.array([pinned[of].any(axis=0) for of in members])
    segments = segments_of(effects_of_clusters, pinned_of_clusters)
    return plan_within(effects_of_clusters, segments, prices_of_clusters, budget)[owner]
