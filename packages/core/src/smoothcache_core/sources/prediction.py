"""The predicted error of any schedule of sites.

The effect of filling site s at evaluation i is u[i] w[s, i] r: r is the root mean square that the
fill leaves of the site's output (from calibrated inner products), w the sensitivity of the
denoiser's output to the site, u that of the final sample to the denoiser's output.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from smoothcache_core.adapters.sites import GUIDANCE
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import residual
from smoothcache_core.numerics.arrays import Array, Indices
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.optimize.surrogate import is_noisy
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.kind import lacks_sites
from smoothcache_core.sources.promises import Promises

SMALLEST = 1e-18  # mean square of an output that calibrations can tell from 0


class Filled:
    """Places that are filled, so that all with as many terms are computed at once."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[int, int, Sequence[int]]]] = {}

    def add(self, site: int, evaluation: int, history: Sequence[int]) -> None:
        """Add a place, whose terms are outputs so many evaluations back."""
        self._places.setdefault(len(history), []).append((site, evaluation, history))

    def by_length(self) -> Iterator[tuple[Indices, Indices, Indices]]:
        """Yield sites (n,), evaluations (n,), and (n, k + 1): 0, then how far back terms are."""
        for places in self._places.values():
            sites, evaluations, histories = zip(*places, strict=True)
            back = np.insert(np.array(histories, dtype=np.int64), 0, 0, axis=1)
            yield np.array(sites), np.array(evaluations), back


def with_prediction(calibration: Calibration, schedule: Schedule) -> Schedule:
    """Return a schedule of sites with its predicted error, where that can be predicted.

    It cannot without sensitivities, nor where outputs stand in for longer than was calibrated.

    Example:
        >>> schedule = with_prediction(calibration, smooth(calibration, alpha=0.2))
        >>> schedule.prediction.error < 1.0  # relative L2 of the final sample
        True

    Args:
        calibration: What was measured.
        schedule: Any schedule of sites, SmoothCache's included, for the run that was calibrated.

    Returns:
        The schedule with a prediction of its error, bytes and seconds; as it is where that cannot
        be predicted.
    """
    dynamics = calibration.dynamics
    if lacks_sensitivities(calibration) or dynamics is None or schedule.whole:
        return schedule
    if calibration.products is None or GUIDANCE.kind in schedule.rows:
        return schedule  # an error was measured of both passes, or of the denoiser
    products = mean_products(calibration)
    left = np.zeros(products.shape[:2])
    filled = Filled()
    timelines = [schedule.timeline(site) for site in calibration.sites]
    for index, timeline in enumerate(timelines):
        for evaluation, sources in enumerate(timeline.sources):
            if not sources:
                continue
            back = [evaluation - source for source in sources]
            if back[-1] >= products.shape[2]:
                return schedule
            filled.add(index, evaluation, back)
    for sites, evaluations, back in filled.by_length():
        grams = grams_of(products, sites, evaluations, back)
        pairs = zip(sites, evaluations, strict=True)
        weights = np.array([timelines[site].weights[evaluation] for site, evaluation in pairs])
        left[sites, evaluations] = residual(grams, weights)
    noisy = is_noisy(dynamics)
    prediction = Promises(calibration, noisy=noisy).of(
        schedule,
        combined(left * sensitivity(calibration), together=noisy),
        bytes=schedule.predicted_bytes(),
        seconds=dynamics.seconds_at(schedule.compute_fraction()),
    )
    return schedule.changed(prediction=prediction)


def grams_of(products: Array, sites: Indices, evaluations: Indices, back: Indices) -> Array:
    """Return inner products (..., k, k) of outputs so many evaluations back.

    Args:
        products: See `Calibration.products`, of one sample.
        sites: Indices of sites, (...).
        evaluations: (...); both are broadcast against each other.
        back: (..., k), likewise.
    """
    later = np.minimum(back[..., :, None], back[..., None, :])
    earlier = np.maximum(back[..., :, None], back[..., None, :])
    places = evaluations[..., None, None] - later
    return products[sites[..., None, None], places, earlier - later]


def lacks_sensitivities(calibration: Calibration) -> str:
    """Return why errors of sites cannot be predicted; empty if they can, and there are sites."""
    if lacking := lacks_sites(calibration):
        return lacking
    dynamics = calibration.dynamics
    if calibration.influence is not None and dynamics is not None and dynamics.measured:
        return ""
    why = calibration.remark or "calibrate with `sensitivity=2`"
    return f"planning needs sensitivities: {why}"


def sensitivity(calibration: Calibration) -> Array:
    """Return the effect of a site's error on the final sample, (sites, E).

    Raises:
        ScheduleError: The calibration has no sensitivities.
    """
    if lacking := lacks_sensitivities(calibration):
        raise ScheduleError(lacking)
    assert calibration.influence is not None
    assert calibration.dynamics is not None
    influence = calibration.influence.values(calibration.sites)
    return influence * calibration.dynamics.final_sensitivity()


def combined(effects: Array, *, together: bool) -> float:
    """Return the error that effects (sites, E) make together.

    Errors of sites are as good as independent, unless it is noise of the solver that all of them
    miss. Those of one site at neighbouring evaluations are neither independent nor quite alike, so
    the geometric mean of both cases is taken.

    Args:
        effects: Relative to the final sample.
        together: Whether the errors of one evaluation add up.
    """
    each = effects.sum(axis=0) if together else np.sqrt((effects**2).sum(axis=0))
    return float(np.sqrt(np.sqrt((each**2).sum()) * each.sum()))


def mean_products(calibration: Calibration) -> Array:
    """Return the inner products of every site's outputs, averaged over samples.

    Raises:
        ScheduleError: The calibration holds none.
    """
    if calibration.products is None:
        why = calibration.remark or "calibrate again"
        raise ScheduleError(f"this calibration holds no inner products of sites: {why}")
    return joined(calibration.products) / calibration.samples
