"""Sums of float64 values that do not depend on the order of the summands.

Calibrations of many samples, made by many processes, are merged by adding. Floating-point addition
is not associative, so a sum is kept as three: every value is cut into a coarse, a middle and a fine
part, each a multiple of a fixed power of two, and the parts are summed apart. Each of these sums is
exact for up to 2^20 values (Demmel and Nguyen, Parallel Reproducible Summation, 2015, with the bins
fixed in advance).
"""

import numpy as np

from smoothcache_core.numerics.arrays import Array

LARGEST = 2.0**40
"""Values must be smaller than this: 32 bits above the coarse grid, which leaves float64 room for
2^20 values."""


_GRIDS = (2.0**8, 2.0**-24, 2.0**-56)
"""Units of the coarse, the middle and the fine part, 32 bits apart: each part has 32 bits at most,
of the 53 of float64, so sums of 2^20 of them are exact."""


def cut(values: Array) -> Array:
    """Return values (...) as parts (3, ...) whose sums are exact; precise to 2^-57.

    Raises:
        ValueError: A value is not finite, or its magnitude is not below `LARGEST`.
    """
    if not np.all(np.abs(values) < LARGEST):
        raise ValueError("a sum of statistics is not finite or too large")
    parts, rest = [], np.asarray(values, dtype=np.float64)
    for grid in _GRIDS:
        parts.append(np.round(rest / grid) * grid + 0.0)  # no -0.0, whose sums have an order
        rest = rest - parts[-1]
    return np.stack(parts)


def is_cut(parts: Array) -> bool:
    """Return whether values (3, ...) are parts that `cut` gave, or sums of such."""
    units = np.reshape(_GRIDS, (3,) + (1,) * (parts.ndim - 1))
    multiples = parts / units
    return bool(np.all((multiples == np.round(multiples)) & (np.abs(multiples) <= 2.0**53)))


def joined(parts: Array) -> Array:
    """Return the values (...) of summed parts (3, ...)."""
    return parts[0] + (parts[1] + parts[2])
