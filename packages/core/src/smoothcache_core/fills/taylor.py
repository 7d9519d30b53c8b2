"""Taylor: polynomial extrapolation of the last outputs (TaylorSeer, arXiv 2503.06923).

TaylorSeer builds a Taylor series from finite differences at even spacing. Here it is the polynomial
through the last outputs, by Lagrange's formula: the same at order 1, exact for parabolas at 2,
and good for uneven spacing too.
"""

import numpy as np

from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills.rule import FillRule
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.schedule.fill import MOST_TERMS


def taylor(order: int = 1) -> FillRule:
    """Return the rule that extrapolates a polynomial of `order` through the last outputs.

    It is TaylorSeer's (arXiv 2503.06923), by Lagrange's formula, so the outputs may be unevenly
    spaced.

    Example:
        >>> schedule = plan(calibration, compute=0.6, target="site", fill=taylor(1))

    Args:
        order: 0 (reuse) to `MOST_TERMS` - 1; a polynomial of order q goes through q + 1 outputs.

    Raises:
        ScheduleError: `order` is none of these.
    """
    if order not in range(MOST_TERMS):
        raise ScheduleError(f"the order of a Taylor fill is 0 to {MOST_TERMS - 1}, got {order}")
    return FillRule(name=f"taylor-{order}", terms=order + 1, coefficients=_lagrange)


def _lagrange(grams: Array, places: Array) -> Array:
    del grams
    wanted, known = places[..., :1], places[..., 1:]
    count = known.shape[-1]
    coefficients = np.ones(known.shape)
    for j in range(count):
        for m in range(count):
            if m != j:
                step = known[..., j] - known[..., m]
                coefficients[..., j] *= (wanted[..., 0] - known[..., m]) / step
    return coefficients
