"""How certain a mean is."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def interval_of_mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % bootstrap interval of a mean.

    Both are None for a single value, and where a value is not finite.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2 or not np.isfinite(known).all():
        return None, None
    drawn = np.random.default_rng(0).integers(len(known), size=(_RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
