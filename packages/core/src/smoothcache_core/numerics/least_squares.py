"""Ridge least squares for the coefficients of fills."""

import math

import numpy as np

from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array

_ENTRIES_PER_COEFFICIENT = 16  # a rule of thumb: of fewer, coefficients follow single samples


def check_enough(samples: int, entries: int, coefficients: int, *, verb: str) -> None:
    """Refuse to fit by too little.

    Args:
        samples: Samples to fit to.
        entries: Entries of one sample.
        coefficients: Coefficients of one fill.
        verb: What to do with more samples, for the message.

    Raises:
        ScheduleError: There are fewer than 16 entries for each coefficient.
    """
    wanted = coefficients * _ENTRIES_PER_COEFFICIENT
    if samples * entries < wanted:
        raise ScheduleError(
            f"{samples} samples of {entries} latent entries are too few to fit {coefficients} "
            f"coefficients per evaluation; {verb} with {math.ceil(wanted / entries)} samples "
            "or more"
        )


RIDGE = 1e-6
"""Of the mean diagonal of the normal equations; pulls towards plain reuse. Far above rounding, so
that outputs that are nearly alike get no huge coefficients, and far below what fills are to
leave."""


def ridge(regressors: Array, target: Array) -> Array:
    """Return the coefficients that combine `regressors` (k, n) to `target` (n,), (k,).

    Minimises |sum_j c_j r_j - t|^2 + r |c - e_0|^2 with r = `RIDGE` x the mean of |r_j|^2: where
    the data do not decide, the newest output is reused.
    """
    normal = regressors @ regressors.T
    return ridge_normal(normal, regressors @ target)


def ridge_normal(normal: Array, right: Array) -> Array:
    """Return the coefficients from the normal equations: (k, k) inner products, and (k,)."""
    size = len(normal)
    strength = RIDGE * float(normal.trace()) / size + 1e-300
    damped: Array = normal.copy()
    pulled: Array = right.copy()
    damped.flat[:: size + 1] += strength
    pulled[0] += strength
    found: Array = np.linalg.solve(damped, pulled).astype(np.float64, copy=False)
    return found
