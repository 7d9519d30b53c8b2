"""Segments between computed evaluations, and the dynamic programme over them.

What lies between a computed evaluation p and the next one, n = p + d (n = E: none follows), is a
segment. With q = p - b the one computed before p, the effect S of a segment depends on p, d and b
alone, hence the least Lagrangian sum from p on obeys

    V(p, b) = multiplier * price + min over d of S(p, d, b) + V(p + d, d),    V(E, .) = 0,

and V_k(p, b), the least effect from p on with k evaluations computed, p among them,

    V_k(p, b) = min over d of S(p, d, b) + V_{k - 1}(p + d, d).

Shapes are those of `costs.py`; `segments` is S of all groups, (E, A + 1, A + 2, G).
"""

import numpy as np
from numpy.typing import NDArray

from smoothcache_core.numerics.arrays import Array, Indices, Rows


def segments_of(effects: Array, pinned: Rows, combine: np.ufunc = np.add) -> Array:
    """Return S, (E, A + 1, A + 2, G): [p, d - 1, b, g] is the effect of filling p + 1..p + d - 1.

    Infinite where one of these is pinned and where p + d is past E.

    Args:
        effects: (G, E, A, A + 2).
        pinned: (G, E).
        combine: np.add for sums of effects, np.maximum for largest ones.
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


def _steps_from(p: int, segments: NDArray[np.generic]) -> Indices:
    """Return the distances d to the next computed evaluation, or the end, that are possible."""
    return np.arange(1, min(segments.shape[1], len(segments) - p) + 1)


def solve_lagrangian(segments: Array, unit: Array) -> Rows:
    """Return the rows, (G, E), of least effect + unit * computed, exact for every group.

    Of equal sums (as floating point adds them) the one that computes least is taken, and of these
    the one whose fills are longest where they first differ.

    Args:
        segments: (E, A + 1, A + 2, G).
        unit: (G,), what computing once costs: multiplier times price.
    """
    sums, counts = _backward(segments, unit)
    rows = np.zeros((segments.shape[-1], len(segments)), dtype=np.bool_)
    group = np.arange(len(rows))
    p = step = np.zeros_like(group)
    while group.size:
        rows[group, p] = True
        step = _best_step(segments, sums, counts, p, step, group)
        p = p + step
        going = p < len(segments)
        group, p, step = group[going], p[going], step[going]
    return rows


def _backward(segments: Array, unit: Array) -> tuple[Array, Indices]:
    """Return V and how many evaluations it computes, both (E + 1, A + 2, G)."""
    evaluations, _, gaps, groups = segments.shape
    sums = np.zeros((evaluations + 1, gaps, groups))
    counts = np.zeros(sums.shape, dtype=np.int64)
    for p in reversed(range(evaluations)):
        step = _steps_from(p, segments)
        total = segments[p, : len(step)] + sums[p + step, step][:, None]
        least = total.min(axis=0)
        more = np.where(total == least, counts[p + step, step][:, None], evaluations)
        sums[p] = least + unit
        counts[p] = more.min(axis=0) + 1
    return sums, counts


def _best_step(
    segments: Array, sums: Array, counts: Indices, p: Indices, gap: Indices, group: Indices
) -> Indices:
    """Return the distance from p to the next computed evaluation, for each of the groups given."""
    evaluations = len(segments)
    step = np.arange(segments.shape[1], 0, -1)  # the longest first: argmin takes the first
    group, p, gap = group[:, None], p[:, None], gap[:, None]
    then = np.minimum(p + step, evaluations), step, group
    total = segments[p, step - 1, gap, group] + sums[then]
    least = total.min(axis=1, keepdims=True)
    return step[np.where(total == least, counts[then], evaluations).argmin(axis=1)]


def least_where(allowed: Rows, prices: Array) -> float:
    """Return the least spend if segments may be used where `allowed`, (E, A + 1, A + 2, G)."""
    evaluations, _, gaps, groups = allowed.shape
    counts = np.zeros((evaluations + 1, gaps, groups), dtype=np.int64)
    for p in reversed(range(evaluations)):
        step = _steps_from(p, allowed)
        then = counts[p + step, step][:, None]
        counts[p] = np.where(allowed[p, : len(step)], then, evaluations).min(axis=0) + 1
    return float((prices * counts[0, 0]).sum())


def sums_by_count(segments: Array, most: int) -> Array:
    """Return V_k, (E + 1, A + 2, most + 1), of one group; `segments` is (E, A + 1, A + 2)."""
    evaluations, _, gaps = segments.shape
    sums = np.full((evaluations + 1, gaps, most + 1), np.inf)
    sums[-1, :, 0] = 0.0
    for p in reversed(range(evaluations)):
        step = _steps_from(p, segments)
        total = segments[p, : len(step), :, None] + sums[p + step, step, :-1][:, None]
        sums[p, :, 1:] = total.min(axis=0)
    return sums


def row_of_count(segments: Array, sums: Array, count: int) -> Rows:
    """Return the row, (E,), of `count` computed evaluations; `sums` is of `sums_by_count`."""
    row = np.zeros(len(segments), dtype=np.bool_)
    p = gap = 0
    while p < len(row):
        row[p] = True
        count -= 1
        step = _steps_from(p, segments)[::-1]
        gap = int(step[(segments[p, step - 1, gap] + sums[p + step, step, count]).argmin()])
        p += gap
    return row
