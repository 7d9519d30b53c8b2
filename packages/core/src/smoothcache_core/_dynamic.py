"""The exact dynamic programme of the planner: which evaluations to compute, which to fill.

A group (one site, or several that share a row) is evaluated E times. Evaluation 0 is computed; at
most A evaluations in a row are filled from the last computed one, p, and the one computed before
it, q. So computed evaluations are at most A + 1 apart, and filling evaluation i costs

    effects[g, i, a - 1, b]    with a = i - p in 1..A and b = p - q in 1..A + 1,

where b = 0 stands for "p is evaluation 0, nothing was computed before it". Effects add up over
evaluations and groups, and what is computed costs `weights[g]` (MACs or seconds) each time.

Shapes used throughout, with G groups:

    effects   (G, E, A, A + 2)  float64, from 0 to 1e60, or infinite where filling is forbidden.
                                Entries that no row can reach (a > i, b > i - a, or b = 0 with
                                i != a) are ignored, whatever they hold.
    weights   (G,)              float64, from 1e-60 to 1e60.
    pinned    (E,) or (G, E)    bool, True where an evaluation must be computed; 0 always is.
    rows      (G, E)            bool, True where computed.

What lies between a computed evaluation p and the next one, n = p + d (n = E: none follows), is a
stretch. Its effect S depends on p, d and b alone, hence the least Lagrangian sum from p on obeys

    V(p, b) = price * weight + min over d of S(p, d, b) + V(p + d, d),    V(E, .) = 0.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from smoothcache_core._errors import ScheduleError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Rows = NDArray[np.bool_]
Plan = TypeVar("Plan")

_LARGEST = 1e60  # sums and products of these stay far from overflow
_EXCHANGED = 16
_MOST_PLANS = 20_000
_ROUNDS = 10
_STARTS = 3
_ROUGH = 24  # halvings of a price's 64 bits: the 11 of its exponent, and some

# ---------------------------------------------------------------------------- what given rows cost


def effects_of(effects: Floats, rows: Rows) -> Floats:
    """Return the effect of every evaluation, (G, E): 0 where computed.

    It is infinite where more than A evaluations in a row were filled, there or just before.

    Args:
        effects: (G, E, A, A + 2), see the module.
        rows: (G, E), computed at evaluation 0.

    Raises:
        ScheduleError: The shapes do not fit, or a row does not compute evaluation 0.
    """
    _check_rows(effects, rows)
    longest = effects.shape[2]
    here = np.arange(rows.shape[1])
    last = np.maximum.accumulate(np.where(rows, here, 0), axis=1)
    before = np.concatenate([last[:, :1], last[:, :-1]], axis=1)
    lag = here - last
    gap = last - np.take_along_axis(before, last, axis=1)
    result = np.where(rows, 0.0, np.inf)
    group, i = np.nonzero(~rows & (lag <= longest) & (gap <= longest + 1))
    result[group, i] = effects[group, i, lag[group, i] - 1, gap[group, i]]
    return result


def effect_of(effects: Floats, rows: Rows) -> Floats:
    """Return the total effect of every group, (G,); see `effects_of`."""
    return effects_of(effects, rows).sum(axis=1)


def largest_effect_of(effects: Floats, rows: Rows) -> Floats:
    """Return the largest effect of a single evaluation of every group, (G,); see `effects_of`."""
    return effects_of(effects, rows).max(axis=1)


def spend(weights: Floats, rows: Rows) -> float:
    """Return the sum of `weights[g]` over everything computed: what budgets are compared with."""
    return float((weights * rows.sum(axis=1)).sum())


def least_spend(effects: Floats, weights: Floats, pinned: Rows) -> float:
    """Return the least `spend` that the pinned evaluations, A and forbidden effects allow.

    Args:
        effects: (G, E, A, A + 2), see the module.
        weights: (G,).
        pinned: (E,) or (G, E).

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range.
    """
    effects, weights, pinned = _checked(effects, weights, pinned)
    return _least(np.isfinite(_stretches(effects, pinned)), weights)


# ---------------------------------------------------------------------------- plans


def cheapest(effects: Floats, weights: Floats, price: float, pinned: Rows) -> Rows:
    """Return the rows, (G, E), of the least sum of effects + price * spend.

    Exact for every group. Of equal sums (as floating point adds them) the one that computes least
    is taken, and of these the one whose fills are longest where they first differ.

    Args:
        effects: (G, E, A, A + 2), see the module.
        weights: (G,).
        price: Effect that one unit of weight is worth, at least 0.
        pinned: (E,) or (G, E).

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range.
    """
    effects, weights, pinned = _checked(effects, weights, pinned)
    if not 0.0 <= price <= _LARGEST**2:
        raise ScheduleError(f"price must be from 0 to {_LARGEST**2:g}, got {price}")
    return _solve(_stretches(effects, pinned), price * weights)


def within_budget(effects: Floats, weights: Floats, pinned: Rows, budget: float) -> Rows:
    """Return rows, (G, E), of little total effect whose `spend` is at most `budget`.

    The price is bisected down to neighbouring floating-point numbers, between which the exact
    minimiser of effects + price * spend changes from within the budget to over it. Group by group
    it goes from the former to the latter as long as that fits. The gap to the least possible
    effect, below that of the least change that did not fit, is closed by trying all counts of up to
    16 groups that could close it, and filled with single evaluations.

    Up to rounding this is exact with up to 16 groups, unless more than 20000 plans were worth
    keeping at once.

    Args:
        effects: (G, E, A, A + 2), see the module.
        weights: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be. Compared without tolerance: weights that are whole
            numbers add up exactly, for others take the budget from `spend` where it matters.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, or `budget` is below
            `least_spend`.
    """
    effects, weights, pinned = _checked(effects, weights, pinned)
    stretches = _stretches(effects, pinned)
    _check_budget(budget, _least(np.isfinite(stretches), weights), effects)
    return _plan(effects, stretches, weights, budget)


def exact_count(effects: Floats, pinned: Rows, count: int, *, fewer: bool = False) -> Rows:
    """Return the row, (E,), of the least effect that computes exactly `count` evaluations.

    With V_k(p, b) the least effect from p on with k evaluations computed, p among them,
    V_k(p, b) = min over d of S(p, d, b) + V_{k - 1}(p + d, d).

    Args:
        effects: (E, A, A + 2), those of one group.
        pinned: (E,).
        count: Evaluations to compute.
        fewer: Allow fewer. Computing more is not always better, as it changes what the other
            evaluations are filled from. Of equal effects the fewest are taken.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, `count` is not between
            what the constraints allow and E, or every such row has a forbidden effect.
    """
    if effects.ndim != 3:
        raise ScheduleError(f"effects of one group must be (E, A, A + 2), got {effects.shape}")
    effects, one, pinned = _checked(effects[None], np.ones(1), pinned)
    stretches = _stretches(effects, pinned)
    least = int(_least(np.isfinite(stretches), one))
    if not least <= count <= pinned.size:
        raise ScheduleError(f"count must be from {least} to {pinned.size}, got {count}")
    sums = _by_count(stretches[..., 0], count)
    best = int(sums[0, 0].argmin()) if fewer else count
    if np.isinf(sums[0, 0, best]):
        raise ScheduleError(
            f"every row that computes exactly {count} of {pinned.size} evaluations has a forbidden "
            "effect; allow fewer"
        )
    return _row_of_count(stretches[..., 0], sums, best)


def minimax(effects: Floats, weights: Floats, pinned: Rows, budget: float) -> Rows:
    """Return the rows, (G, E), of the least largest effect whose `spend` is at most `budget`.

    The least threshold is found by bisection over the effects that occur: it is met if computing
    as little as possible with no effect above it fits the budget. Among the rows that meet it,
    `within_budget` lowers the sum.

    Args:
        effects: (G, E, A, A + 2), see the module.
        weights: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, or `budget` is below
            `least_spend`.
    """
    effects, weights, pinned = _checked(effects, weights, pinned)
    largest = _stretches(effects, pinned, combine=np.maximum)
    _check_budget(budget, _least(np.isfinite(largest), weights), effects)
    thresholds = np.unique(largest[np.isfinite(largest)])
    low, high = 0, len(thresholds) - 1
    while low < high:
        middle = (low + high) // 2
        if _least(largest <= thresholds[middle], weights) <= budget:
            high = middle
        else:
            low = middle + 1
    allowed = np.where(effects <= thresholds[high], effects, np.inf)
    del largest
    return _plan(allowed, _stretches(allowed, pinned), weights, budget)


def at_most_rows(effects: Floats, weights: Floats, pinned: Rows, budget: float, limit: int) -> Rows:
    """Return rows, (G, E), like `within_budget`, of which at most `limit` are distinct.

    For a price, candidates are every group's own best row and the best single row for all. Rows are
    chosen greedily, each time the one that lowers the Lagrangian sum most; the price is bisected.
    Then groups are given rows, and rows are planned anew for the groups that share them, in turn,
    always within the budget, while the effect falls.

    With `limit` 1 this is the plan of the summed effects and weights, which is exact. With `limit`
    G or more it is `within_budget`. In between it is a heuristic, never worse than `limit` 1.

    Args:
        effects: (G, E, A, A + 2), see the module.
        weights: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be.
        limit: Most distinct rows, at least 1.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, `budget` is below
            `least_spend`, or no `limit` rows were found that meet it.
    """

    def total(rows: Rows) -> float:
        return float(effect_of(effects, rows).sum())

    effects, weights, pinned = _checked(effects, weights, pinned)
    if limit < 1:
        raise ScheduleError(f"limit, the number of distinct rows, must be at least 1, got {limit}")
    stretches = _stretches(effects, pinned)
    _check_budget(budget, _least(np.isfinite(stretches), weights), effects)
    if limit >= len(effects):
        return _plan(effects, stretches, weights, budget)
    plans = [_plan_together(effects, weights, pinned, budget)]
    if limit > 1:
        own = _plan(effects, stretches, weights, budget)
        plans.append(own if len(np.unique(own, axis=0)) <= limit else None)
        starts = sorted(_starts(stretches, weights, budget, limit), key=total)[:_STARTS]
        plans += [
            _alternate(effects, stretches, weights, pinned, budget, start) for start in starts
        ]
    plans = [rows for rows in plans if rows is not None]
    if not plans:
        raise ScheduleError(
            f"budget {float(budget)} was not met with {limit} distinct rows for {len(effects)} "
            "groups, whose pinned evaluations or forbidden effects differ; allow more of either"
        )
    return min(plans, key=total)


# ---------------------------------------------------------------------------- stretches


def _stretches(effects: Floats, pinned: Rows, combine: np.ufunc = np.add) -> Floats:
    """Return S, (E, A + 1, A + 2, G): [p, d - 1, b, g] is the effect of filling p + 1..p + d - 1.

    Infinite where one of these is pinned and where p + d is past E. `combine` is np.add for sums,
    np.maximum for largest ones.
    """
    groups, evaluations, longest, gaps = effects.shape
    result = np.full((evaluations, longest + 1, gaps, groups), np.inf)
    result[:, 0] = 0.0
    ordered = effects.transpose(1, 2, 3, 0)
    free = ~pinned.T[:, None]
    for a in range(1, min(longest, evaluations - 1) + 1):
        p = slice(evaluations - a)
        filled = np.where(free[a:], ordered[a:, a - 1], np.inf)
        combine(result[p, a - 1], filled, out=result[p, a])
    return result


def _steps_from(p: int, stretches: NDArray[np.generic]) -> Integers:
    """Return the distances d to the next computed evaluation, or the end, that are possible."""
    return np.arange(1, min(stretches.shape[1], len(stretches) - p) + 1)


def _effects_of_shared(stretches: Floats, shared: Rows) -> Floats:
    """Return (R, G): the effect of each of the `shared` rows (R, E) in each group."""
    return np.stack([_effect_of_row(stretches, row) for row in shared])


def _effect_of_row(stretches: Floats, row: Rows) -> Floats:
    computed = np.flatnonzero(row)
    step = np.diff(computed, append=len(row))
    if step.max() > stretches.shape[1]:
        return np.full(stretches.shape[-1], np.inf)
    return stretches[computed, step - 1, np.diff(computed, prepend=0)].sum(axis=0)


# ---------------------------------------------------------------------------- programme


def _solve(stretches: Floats, unit: Floats) -> Rows:
    """Return the rows of least effect + unit * computed, for `unit` (G,): price times weight."""
    sums, counts = _backward(stretches, unit)
    rows = np.zeros((stretches.shape[-1], len(stretches)), dtype=np.bool_)
    group = np.arange(len(rows))
    p = step = np.zeros_like(group)
    while group.size:
        rows[group, p] = True
        step = _best_step(stretches, sums, counts, p, step, group)
        p = p + step
        going = p < len(stretches)
        group, p, step = group[going], p[going], step[going]
    return rows


def _backward(stretches: Floats, unit: Floats) -> tuple[Floats, Integers]:
    """Return V and how many evaluations it computes, both (E + 1, A + 2, G)."""
    evaluations, _, gaps, groups = stretches.shape
    sums = np.zeros((evaluations + 1, gaps, groups))
    counts = np.zeros(sums.shape, dtype=np.int64)
    for p in reversed(range(evaluations)):
        step = _steps_from(p, stretches)
        total = stretches[p, : len(step)] + sums[p + step, step][:, None]
        least = total.min(axis=0)
        more = np.where(total == least, counts[p + step, step][:, None], evaluations)
        sums[p] = least + unit
        counts[p] = more.min(axis=0) + 1
    return sums, counts


def _best_step(
    stretches: Floats, sums: Floats, counts: Integers, p: Integers, gap: Integers, group: Integers
) -> Integers:
    """Return the distance from p to the next computed evaluation, for each of the groups given."""
    evaluations = len(stretches)
    step = np.arange(stretches.shape[1], 0, -1)  # the longest first: argmin takes the first
    group, p, gap = group[:, None], p[:, None], gap[:, None]
    then = np.minimum(p + step, evaluations), step, group
    total = stretches[p, step - 1, gap, group] + sums[then]
    least = total.min(axis=1, keepdims=True)
    return step[np.where(total == least, counts[then], evaluations).argmin(axis=1)]


def _least(allowed: Rows, weights: Floats) -> float:
    """Return the least spend if stretches may be used where `allowed`, (E, A + 1, A + 2, G)."""
    evaluations, _, gaps, groups = allowed.shape
    counts = np.zeros((evaluations + 1, gaps, groups), dtype=np.int64)
    for p in reversed(range(evaluations)):
        step = _steps_from(p, allowed)
        then = counts[p + step, step][:, None]
        counts[p] = np.where(allowed[p, : len(step)], then, evaluations).min(axis=0) + 1
    return float((weights * counts[0, 0]).sum())


def _by_count(stretches: Floats, most: int) -> Floats:
    """Return V_k, (E + 1, A + 2, most + 1): see `exact_count`; `stretches` is (E, A + 1, A + 2)."""
    evaluations, _, gaps = stretches.shape
    sums = np.full((evaluations + 1, gaps, most + 1), np.inf)
    sums[-1, :, 0] = 0.0
    for p in reversed(range(evaluations)):
        step = _steps_from(p, stretches)
        total = stretches[p, : len(step), :, None] + sums[p + step, step, :-1][:, None]
        sums[p, :, 1:] = total.min(axis=0)
    return sums


def _row_of_count(stretches: Floats, sums: Floats, count: int) -> Rows:
    """Return the row, (E,), of `count` computed evaluations that `sums`, of `_by_count`, finds."""
    row = np.zeros(len(stretches), dtype=np.bool_)
    p = gap = 0
    while p < len(row):
        row[p] = True
        count -= 1
        step = _steps_from(p, stretches)[::-1]
        gap = int(step[(stretches[p, step - 1, gap] + sums[p + step, step, count]).argmin()])
        p += gap
    return row


# ---------------------------------------------------------------------------- budgets


def _plan(effects: Floats, stretches: Floats, weights: Floats, budget: float) -> Rows:
    """See `within_budget`; the budget is known to be feasible."""

    def solve(price: float, within: Rows, over: Rows) -> Rows:
        # A row that is best at two prices is best between them.
        open_ = (within != over).any(axis=1)
        part = stretches if open_.all() else np.compress(open_, stretches, axis=-1)
        rows = within.copy()
        rows[open_] = _solve(part, price * weights[open_])
        return rows

    if len(weights) == 1:
        row = _plan_one(stretches[..., 0], weights, budget)
        assert row is not None, "the budget is feasible"
        return row[None]
    top = _top_price(stretches, weights)
    ends = _solve(stretches, top * weights), _solve(stretches, 0.0 * weights)
    within, over = _bisect(solve, lambda rows: spend(weights, rows) <= budget, top, *ends)
    saved = effect_of(effects, within) - effect_of(effects, over)
    rows = _towards(saved, weights, within, over, budget)
    rows = _exchange(effects, stretches, weights, rows, over, budget)
    return _add_single(effects, weights, rows, budget)


def _plan_one(stretches: Floats, weights: Floats, budget: float) -> Rows | None:
    """Return the best row, (E,), for groups of the given weights; None if the budget has none.

    `stretches` is (E, A + 1, A + 2), summed over the groups.
    """
    counts = range(1, len(stretches) + 1)
    count = sum(float((weights * count).sum()) <= budget for count in counts)
    sums = _by_count(stretches, count)
    best = int(sums[0, 0].argmin())
    return None if np.isinf(sums[0, 0, best]) else _row_of_count(stretches, sums, best)


def _top_price(stretches: Floats, weights: Floats) -> float:
    """Return a price above which nothing is computed that does not have to be."""
    largest = stretches.max(axis=(0, 1, 2), where=np.isfinite(stretches), initial=0.0)
    return float((2.0 * len(stretches) * largest / weights).max()) or 1.0


def _bisect(
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


def _towards(saved: Floats, weights: Floats, within: Rows, over: Rows, budget: float) -> Rows:
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
    effects: Floats, stretches: Floats, weights: Floats, rows: Rows, over: Rows, budget: float
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
    sums = [_by_count(stretches_of_one, len(stretches)) for stretches_of_one in part]
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
    result[some] = [_row_of_count(*of_one) for of_one in zip(part, sums, counts, strict=True)]
    return result if spend(weights, result) <= budget else rows


def _best_counts(
    least: Floats, weights: Floats, price: float, budget: float, known: float
) -> Integers | None:
    """Return the counts, (G,), of the least effect below `known`; None if there are none.

    Group after group is added to the list of plans so far, less those that another one dominates.

    Args:
        least: (G, E + 1), the least effect of each count, infinite where there is none.
        weights: (G,).
        price: Any; the nearer to the best multiplier, the fewer plans are tried.
        budget: Most that the sum of weights * counts may be.
        known: Effect of a known plan.
    """
    cost: Floats = weights[:, None] * np.arange(least.shape[1])
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


def _undominated(spent: Floats, effect: Floats) -> Integers:
    """Return which plans have a lower effect than all that spend as little."""
    order = np.lexsort((effect, spent))
    before = np.minimum.accumulate(np.concatenate([[np.inf], effect[order][:-1]]))
    return order[effect[order] < before]


def _add_single(effects: Floats, weights: Floats, rows: Rows, budget: float) -> Rows:
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


def _saved_by_each(effects: Floats, row: Rows) -> Floats:
    """Return (E,): how much lower the effect of one group's row is with evaluation i computed."""
    changed = row | np.eye(len(row), dtype=np.bool_)
    now = effect_of(effects[None], row[None])
    return now - effect_of(np.broadcast_to(effects, (len(row), *effects.shape)), changed)


# ---------------------------------------------------------------------------- shared rows


def _plan_together(effects: Floats, weights: Floats, pinned: Rows, budget: float) -> Rows | None:
    """Return the best plan, (G, E), with one row for all groups; None if the budget has none."""
    together = effects.sum(axis=0, keepdims=True)
    stretches = _stretches(together, np.array([pinned.any(axis=0)]))
    row = _plan_one(stretches[..., 0], weights, budget)
    return None if row is None else np.repeat(row[None], len(weights), axis=0)


def _starts(stretches: Floats, weights: Floats, budget: float, limit: int) -> list[Rows]:
    """Return plans, (G, E), within the budget, of at most `limit` rows: of the prices near its own.

    The last are the cheapest for the groups that share rows at the highest price.
    """
    shared = []

    def solve(price: float, *_: Rows) -> Rows:
        rows = _facilities(stretches, weights, price, limit)
        shared.append(np.unique(rows, axis=0))
        return rows

    top = _top_price(stretches, weights)
    ends = solve(top), solve(0.0)
    _bisect(solve, lambda rows: spend(weights, rows) <= budget, top, *ends, _ROUGH)
    members, _ = _sharing(ends[0])
    sums = np.stack([stretches[..., of].sum(axis=-1) for of in members], axis=-1)
    shared.append(_solve(sums, top * np.array([weights[of].sum() for of in members])))
    plans = {rows.tobytes(): _assign(stretches, rows, weights, budget) for rows in shared}
    return [rows for rows in plans.values() if rows is not None]


def _sharing(rows: Rows) -> tuple[list[Rows], Integers]:
    """Return for each distinct row which groups have it, (G,), and for each group which row."""
    owner = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return [owner == row for row in range(owner.max() + 1)], owner


def _facilities(stretches: Floats, weights: Floats, price: float, limit: int) -> Rows:
    """Return every group's row, (G, E), of at most `limit` that greedily lower the Lagrangian."""
    together = _solve(stretches.sum(axis=-1, keepdims=True), price * weights.sum(keepdims=True))
    candidates = np.concatenate([together, np.unique(_solve(stretches, price * weights), axis=0)])
    lagrangian = _effects_of_shared(stretches, candidates)
    lagrangian += np.outer(candidates.sum(axis=1), price * weights)
    chosen, least = [0], lagrangian[0]
    while len(chosen) < limit:
        sums = np.minimum(lagrangian, least).sum(axis=1)
        best = int(sums.argmin())
        if sums[best] >= least.sum():
            break
        chosen.append(best)
        least = np.minimum(least, lagrangian[best])
    return candidates[chosen][lagrangian[chosen].argmin(axis=0)]


def _assign(stretches: Floats, shared: Rows, weights: Floats, budget: float) -> Rows | None:
    """Return the rows, (G, E), that give each group one of `shared`, (R, E), within the budget.

    Bisects the price, as `within_budget` does. None if the budget is too small for `shared`.
    """
    shared = shared[np.argsort(shared.sum(axis=1), kind="stable")]  # ties go to the cheaper row
    effects = _effects_of_shared(stretches, shared)
    cost = np.outer(shared.sum(axis=1), weights)

    def solve(price: float, *_: Integers) -> Integers:
        return (effects + price * cost).argmin(axis=0)

    def fits(owner: Integers) -> bool:
        return spend(weights, shared[owner]) <= budget

    largest = effects.max(axis=0, where=np.isfinite(effects), initial=0.0)
    top = float((2.0 * largest / weights).max()) or 1.0
    ends = solve(top), solve(0.0)
    if not fits(ends[0]):
        return None
    within, over = _bisect(solve, fits, top, *ends)
    group = np.arange(len(weights))
    saved = effects[within, group] - effects[over, group]
    return _towards(saved, weights, shared[within], shared[over], budget)


def _alternate(
    effects: Floats,
    stretches: Floats,
    weights: Floats,
    pinned: Rows,
    budget: float,
    rows: Rows,
) -> Rows:
    """Return `rows` after planning shared rows anew and assigning them anew, while it helps."""
    total = effect_of(effects, rows).sum()
    for _ in range(_ROUNDS):
        if (rows == rows[0]).all():
            break
        planned = _plan_shared(effects, weights, pinned, budget, rows)
        assigned = _assign(stretches, np.unique(planned, axis=0), weights, budget)
        trials = [trial for trial in (planned, assigned) if trial is not None]
        best = min(trials, key=lambda trial: float(effect_of(effects, trial).sum()))
        best_total = effect_of(effects, best).sum()
        if best_total >= total or spend(weights, best) > budget:
            break
        rows, total = best, best_total
    return rows


def _plan_shared(effects: Floats, weights: Floats, pinned: Rows, budget: float, rows: Rows) -> Rows:
    """Return the plan, (G, E), that is best for the groups that share rows in `rows`."""
    members, owner = _sharing(rows)
    effects_of_clusters = np.stack([effects[of].sum(axis=0) for of in members])
    weights_of_clusters = np.array([weights[of].sum() for of in members])
    pinned_of_clusters = np.array([pinned[of].any(axis=0) for of in members])
    stretches = _stretches(effects_of_clusters, pinned_of_clusters)
    return _plan(effects_of_clusters, stretches, weights_of_clusters, budget)[owner]


# ---------------------------------------------------------------------------- checks


def _checked(effects: Floats, weights: Floats, pinned: Rows) -> tuple[Floats, Floats, Rows]:
    """Return the arguments as arrays, `pinned` as (G, E), or raise a ScheduleError."""
    effects = _checked_effects(np.asarray(effects, np.float64))
    weights = np.asarray(weights, np.float64)
    groups, evaluations = effects.shape[:2]
    if weights.shape != (groups,):
        raise ScheduleError(f"weights must be ({groups},), one per group, got {weights.shape}")
    if not ((weights >= 1 / _LARGEST) & (weights <= _LARGEST)).all():
        raise ScheduleError(f"weights must be above 0 and at most {_LARGEST:g}, got {weights}")
    if pinned.dtype != np.bool_ or pinned.shape not in ((evaluations,), (groups, evaluations)):
        raise ScheduleError(
            f"pinned must be bool ({evaluations},) or ({groups}, {evaluations}), "
            f"got {pinned.dtype} {pinned.shape}"
        )
    return effects, weights, np.broadcast_to(pinned, (groups, evaluations))


def _checked_effects(effects: Floats) -> Floats:
    """Return `effects` with infinity where no row can reach, or raise a ScheduleError."""
    shape = effects.shape
    if len(shape) != 4 or 0 in shape or shape[3] != shape[2] + 2:
        raise ScheduleError(f"effects must be (G, E, A, A + 2) and not empty, got {shape}")
    i, a, b = np.ogrid[: shape[1], 1 : shape[2] + 1, : shape[3]]
    reached = np.where(b == 0, a == i, b <= i - a)
    effects = np.where(reached, effects, np.inf)
    wrong = ~((effects >= 0.0) & (effects <= _LARGEST) | (effects == np.inf))
    if wrong.any():
        where = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise ScheduleError(
            f"effects must be from 0 to {_LARGEST:g}, or infinite where filling is forbidden, "
            f"got {effects[where]} at {list(where)}"
        )
    return effects


def _check_rows(effects: Floats, rows: Rows) -> None:
    if effects.ndim != 4 or rows.dtype != np.bool_ or rows.shape != effects.shape[:2]:
        raise ScheduleError(f"rows must be bool {effects.shape[:2]}, got {rows.dtype} {rows.shape}")
    if not rows[:, 0].all():
        raise ScheduleError("every row must compute evaluation 0; there is nothing to fill it from")


def _check_budget(budget: float, least: float, effects: Floats) -> None:
    if not budget >= least:
        raise ScheduleError(
            f"budget {float(budget)} is below {least}, the least possible with fills of at most "
            f"{effects.shape[2]} evaluations in a row, pinned ones and forbidden effects"
        )
