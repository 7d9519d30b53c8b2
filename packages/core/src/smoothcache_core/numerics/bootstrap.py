"""How certain a mean is."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000  # the ends of a 95 % interval then have 50 resamples beyond them each


def interval_of_mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % bootstrap interval of a mean, by percentiles; always the same.

    Both are None for a single value, and where a value is not finite.

    Args:
        values: One per sample, (n,).
    """
    from scipy.stats import bootstrap  # slow to load, and of no use to planning

    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2 or not np.isfinite(known).all():
        return None, None
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(low), float(high)
