"""Linear: coefficients calibrated for each site and evaluation by ridge least squares."""

import numpy as np

from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills.rule import FillRule
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.least_squares import RIDGE
from smoothcache_core.schedule.fill import MOST_TERMS


def linear(terms: int = 2) -> FillRule:
    """Return the rule that combines the last outputs by calibrated coefficients.

    For every site and evaluation they minimise ||y - sum_j c_j x_j||^2 over the calibration
    samples, y the output to be filled and x_j those computed before it, with a small ridge towards
    plain reuse.

    Example:
        >>> schedule = plan(calibration, compute=0.6, target="site", fill=linear(2))

    Args:
        terms: 1 to `MOST_TERMS` computed outputs. One is a mere scale and cannot follow a slope.

    Raises:
        ScheduleError: `terms` is out of range.
    """
    if not 1 <= terms <= MOST_TERMS:
        raise ScheduleError(f"a linear fill has 1 to {MOST_TERMS} terms, got {terms}")
    return FillRule(name=f"linear-{terms}", terms=terms, coefficients=_least_squares)


def _least_squares(grams: Array, places: Array) -> Array:
    """Minimise the residual, with a ridge of 1e-6 of the mean diagonal towards plain reuse."""
    del places
    normal, right = grams[..., 1:, 1:], grams[..., 1:, 0]
    count = normal.shape[-1]
    strength = RIDGE * np.trace(normal, axis1=-2, axis2=-1)[..., None] / count + 1e-300
    prior = strength * np.eye(count)[0]
    damped = normal + strength[..., None] * np.eye(count)
    return np.linalg.solve(damped, (right + prior)[..., None])[..., 0]
