"""How certain the mean of errors on other samples is, known from a few."""

from collections.abc import Sequence

import numpy as np

_SPREAD = 0.55
"""Standard deviation of the logarithms of errors that is expected before any is seen. Errors of
samples of one condition have 0.1 to 0.4 with the shipped models, but conditions differ besides, and
two samples are of two. With 0.4, 14 of 18 fits kept their interval (benchmarks/, promises)."""


_WORTH = 5.0
"""How many samples that expectation is worth: two samples may lie close to each other by chance."""


_OPTIMISM = 0.1
"""By how much, as a logarithm, one sample that was fitted to errs less than others; it falls as one
over the number of samples. Fits of two samples erred 0.95 times as much as on others."""


def interval_of_new_mean(errors: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of the mean error on samples that were not fitted to.

    The mean of the given ones is not optimistic by itself, but fitting made it so, and the spread
    of two or three samples tells little. So the spread of their logarithms is averaged with what is
    known of other models (a scaled inverse chi-squared prior), Student's t is taken with as many
    degrees of freedom as both have, and the interval is moved up by the optimism of a fit.

    Args:
        errors: Of the samples that were fitted to, at least one, at least 0, (n,).

    Returns:
        None and None where an error is not finite. Both are 0 where all errors are.
    """
    from scipy.stats import t  # slow to load, and of no use to planning

    known = np.asarray(errors, dtype=np.float64)
    if not np.isfinite(known).all():
        return None, None
    mean, count = float(known.mean()), len(known)
    if not mean:
        return 0.0, 0.0
    logs = np.log(np.maximum(known, 1e-3 * mean))
    degrees = _WORTH + count - 1
    variance = (_WORTH * _SPREAD**2 + float(((logs - logs.mean()) ** 2).sum())) / degrees
    reach = float(t.ppf(0.975, degrees)) * np.sqrt(variance / count)
    moved = _OPTIMISM / count
    return mean * float(np.exp(moved - reach)), mean * float(np.exp(moved + reach))
