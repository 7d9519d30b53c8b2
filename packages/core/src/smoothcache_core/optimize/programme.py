"""The exact dynamic programme of the planner: which evaluations to compute, which to fill.

A group (one site, or several that share a row) is evaluated E times. Evaluation 0 is computed; at
most A evaluations in a row are filled from the last computed one, p, and the one computed before
it, q. So computed evaluations are at most A + 1 apart, and filling evaluation i costs

    effects[g, i, a - 1, b]    with a = i - p in 1..A and b = p - q in 1..A + 1,

where b = 0 stands for "p is evaluation 0, nothing was computed before it". Effects add up over
evaluations and groups, and what is computed costs `prices[g]` (MACs or seconds) each time.

What is where: the public functions here; shapes, checks and the cost of given rows in
`costs.py`; the programme of one multiplier or count in `segments.py`; budgets in `budgets.py`;
rows that groups share in `shared_rows.py`.
"""

import numpy as np

from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array, Rows
from smoothcache_core.optimize.budgets import plan_within
from smoothcache_core.optimize.costs import check_budget, checked_problem
from smoothcache_core.optimize.segments import least_where, segments_of
from smoothcache_core.optimize.shared_rows import plan_sharing


def within_budget(effects: Array, prices: Array, pinned: Rows, budget: float) -> Rows:
    """Return rows, (G, E), of little total effect whose `spend` is at most `budget`.

    The multiplier of spending is bisected down to neighbouring floating-point numbers, between
    which the exact minimiser of effects + multiplier * spend changes from within the budget to over
    it. Group by group it goes from the former to the latter as long as that fits. The gap to the
    least possible effect, below that of the least change that did not fit, is closed by trying all
    counts of up to 16 groups that could close it, and filled with single evaluations.

    Up to rounding this is exact with up to 16 groups, unless more than 20000 plans were worth
    keeping at once.

    Args:
        effects: (G, E, A, A + 2), see `costs.py`.
        prices: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be. Compared without tolerance: prices that are whole
            numbers add up exactly, for others take the budget from `spend` where it matters.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, or `budget` is below
            the least possible.
    """
    effects, prices, pinned = checked_problem(effects, prices, pinned)
    segments = segments_of(effects, pinned)
    check_budget(budget, least_where(np.isfinite(segments), prices), effects)
    return plan_within(effects, segments, prices, budget)


def minimax(effects: Array, prices: Array, pinned: Rows, budget: float) -> Rows:
    """Return the rows, (G, E), of the least largest effect whose `spend` is at most `budget`.

    The least threshold is found by bisection over the effects that occur: it is met if computing
    as little as possible with no effect above it fits the budget. Among the rows that meet it,
    `within_budget` lowers the sum.

    Args:
        effects: (G, E, A, A + 2), see `costs.py`.
        prices: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, or `budget` is below
            the least possible.
    """
    effects, prices, pinned = checked_problem(effects, prices, pinned)
    largest = segments_of(effects, pinned, combine=np.maximum)
    check_budget(budget, least_where(np.isfinite(largest), prices), effects)
    thresholds = np.unique(largest[np.isfinite(largest)])
    low, high = 0, len(thresholds) - 1
    while low < high:
        middle = (low + high) // 2
        if least_where(largest <= thresholds[middle], prices) <= budget:
            high = middle
        else:
            low = middle + 1
    allowed = np.where(effects <= thresholds[high], effects, np.inf)
    del largest
    return plan_within(allowed, segments_of(allowed, pinned), prices, budget)


def at_most_rows(effects: Array, prices: Array, pinned: Rows, budget: float, limit: int) -> Rows:
    """Return rows, (G, E), like `within_budget`, of which at most `limit` are distinct.

    For a multiplier, candidates are every group's own best row and the best single row for all.
    Rows are chosen greedily, each time the one that lowers the Lagrangian sum most (p-median by
    facility location); the multiplier is bisected. Then groups are given rows, and rows are planned
    anew for the groups that share them, in turn, always within the budget, while the effect falls.

    With `limit` 1 this is the plan of the summed effects and prices, which is exact. With `limit`
    G or more it is `within_budget`. In between it is a heuristic, never worse than `limit` 1.

    Args:
        effects: (G, E, A, A + 2), see `costs.py`.
        prices: (G,).
        pinned: (E,) or (G, E).
        budget: Most that `spend` may be.
        limit: Most distinct rows, at least 1.

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range, `budget` is below
            the least possible, or no `limit` rows were found that meet it.
    """
    effects, prices, pinned = checked_problem(effects, prices, pinned)
    if limit < 1:
        raise ScheduleError(f"limit, the number of distinct rows, must be at least 1, got {limit}")
    segments = segments_of(effects, pinned)
    check_budget(budget, least_where(np.isfinite(segments), prices), effects)
    if limit >= len(effects):
        return plan_within(effects, segments, prices, budget)
    rows = plan_sharing(effects, segments, prices, pinned, budget, limit)
    if rows is None:
        raise ScheduleError(
            f"budget {float(budget)} was not met with {limit} distinct rows for {len(effects)} "
            "groups, whose pinned evaluations or forbidden effects differ; allow more of either"
        )
    return rows
