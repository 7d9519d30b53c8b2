"""Effects of fills: their shapes, their checks, and what given rows cost.

Shapes used throughout the dynamic programme, with G groups, E evaluations and at most A of them
filled in a row:

    effects   (G, E, A, A + 2)  float64, from 0 to 1e60, or infinite where filling is forbidden.
                                Entries that no row can reach (a > i, b > i - a, or b = 0 with
                                i != a) are ignored, whatever they hold.
    prices   (G,)              float64, from 1e-60 to 1e60.
    pinned    (E,) or (G, E)    bool, True where an evaluation must be computed; 0 always is.
    rows      (G, E)            bool, True where computed.

Which entry is of which fill is told in `programme.py`.
"""

import numpy as np

from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array, Rows

LARGEST = 1e60
"""The largest effect, price and inverse of a price: sums and products stay below overflow."""


def effects_of(effects: Array, rows: Rows) -> Array:
    """Return the effect of every evaluation, (G, E): 0 where computed.

    It is infinite where more than A evaluations in a row were filled, there or just before.

    Args:
        effects: (G, E, A, A + 2).
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


def effect_of(effects: Array, rows: Rows) -> Array:
    """Return the total effect of every group, (G,); see `effects_of`."""
    return effects_of(effects, rows).sum(axis=1)


def spend(prices: Array, rows: Rows) -> float:
    """Return the sum of `prices[g]` over everything computed: what budgets are compared with."""
    return float((prices * rows.sum(axis=1)).sum())


def checked_problem(effects: Array, prices: Array, pinned: Rows) -> tuple[Array, Array, Rows]:
    """Return the arguments as arrays, infinity where no row can reach, `pinned` as (G, E).

    Raises:
        ScheduleError: An argument has a wrong shape or a value out of range.
    """
    effects = _checked_effects(np.asarray(effects, np.float64))
    prices = np.asarray(prices, np.float64)
    groups, evaluations = effects.shape[:2]
    if prices.shape != (groups,):
        raise ScheduleError(f"prices must be ({groups},), one per group, got {prices.shape}")
    if not ((prices >= 1 / LARGEST) & (prices <= LARGEST)).all():
        raise ScheduleError(f"prices must be above 0 and at most {LARGEST:g}, got {prices}")
    if pinned.dtype != np.bool_ or pinned.shape not in ((evaluations,), (groups, evaluations)):
        raise ScheduleError(
            f"pinned must be bool ({evaluations},) or ({groups}, {evaluations}), "
            f"got {pinned.dtype} {pinned.shape}"
        )
    return effects, prices, np.broadcast_to(pinned, (groups, evaluations))


def _checked_effects(effects: Array) -> Array:
    """Return `effects` with infinity where no row can reach, or raise a ScheduleError."""
    shape = effects.shape
    if len(shape) != 4 or 0 in shape or shape[3] != shape[2] + 2:
        raise ScheduleError(f"effects must be (G, E, A, A + 2) and not empty, got {shape}")
    i, a, b = np.ogrid[: shape[1], 1 : shape[2] + 1, : shape[3]]
    reached = np.where(b == 0, a == i, b <= i - a)
    effects = np.where(reached, effects, np.inf)
    wrong = ~((effects >= 0.0) & (effects <= LARGEST) | (effects == np.inf))
    if wrong.any():
        where = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise ScheduleError(
            f"effects must be from 0 to {LARGEST:g}, or infinite where filling is forbidden, "
            f"got {effects[where]} at {list(where)}"
        )
    return effects


def check_budget(budget: float, least: float, effects: Array) -> None:
    """Refuse a budget below the `least` spend that `effects` allow.

    Raises:
        ScheduleError: It is below, or not a number.
    """
    if not budget >= least:
        raise ScheduleError(
            f"budget {float(budget)} is below {least}, the least possible with fills of at most "
            f"{effects.shape[2]} evaluations in a row, pinned ones and forbidden effects"
        )


def _check_rows(effects: Array, rows: Rows) -> None:
    if effects.ndim != 4 or rows.dtype != np.bool_ or rows.shape != effects.shape[:2]:
        raise ScheduleError(f"rows must be bool {effects.shape[:2]}, got {rows.dtype} {rows.shape}")
    if not rows[:, 0].all():
        raise ScheduleError("every row must compute evaluation 0; there is nothing to fill it from")
