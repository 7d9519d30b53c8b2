"""Relative errors on a grid on which their sums are exact."""

import numpy as np

from smoothcache_core.numerics.arrays import Array

LARGEST = 16.0
"""Relative errors above this are stored as infinite: reuse is out of the question."""


GRID = 2.0**32
"""Errors are rounded to multiples of 1 / `GRID`, finer than float32 tells errors of 1. With at
most `LARGEST` they have 36 bits."""


MOST_SAMPLES = 2**17
"""The 53 bits of float64 add up so many errors of 36 bits exactly."""


def quantised(errors: Array) -> Array:
    """Round errors to the grid on which sums are exact; above `LARGEST` they become infinite."""
    rounded = np.round(errors * GRID) / GRID
    return np.where(rounded > LARGEST, np.inf, rounded)


def quantised_squares(errors: Array) -> Array:
    """Return the squares of the quantised errors, on the same grid."""
    kept = quantised(errors)
    return np.where(np.isinf(kept), np.inf, np.round(kept**2 * GRID) / GRID)
