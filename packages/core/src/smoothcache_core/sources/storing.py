"""What it adds to the error of a schedule that what is kept is rounded.

Every output that a fill combines is off by a rounding error of its own, which is as good as
independent of all others. What it does is predicted like any error of a fill: by how errors of
sites and outputs change the final sample.
"""

import math

import numpy as np

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.storage import Storage, width_of
from smoothcache_core.schedule.timeline import Timeline
from smoothcache_core.sources.prediction import (
    combined,
    lacks_sensitivities,
    mean_products,
    sensitivity,
)


def stored(calibration: Calibration, schedule: Schedule, storage: Storage) -> Schedule:
    """Return a schedule that keeps outputs otherwise, with the error that is to be expected.

    Example:
        >>> rounded = stored(calibration, schedule, Storage(dtype="bfloat16"))
        >>> rounded.prediction.error >= schedule.prediction.error
        True

    Args:
        calibration: What it was planned from.
        schedule: What is to keep its outputs otherwise.
        storage: How it is to keep outputs.

    Returns:
        The schedule with this storage; if it has a prediction, with what rounding adds to its
        error, and the bytes that are kept then.
    """
    made = schedule.changed(storage=None if storage.is_plain else storage)
    known = schedule.prediction
    if known is None:
        return made
    added = rounding_error(calibration.of(schedule), schedule, storage)

    def with_rounding(error: float | None) -> float | None:
        return None if error is None else math.hypot(error, added)

    by_guidance = {k: math.hypot(v, added) for k, v in (known.by_guidance or {}).items()}
    prediction = known.changed(
        error=with_rounding(known.error),
        low=with_rounding(known.low),
        high=with_rounding(known.high),
        bytes=made.predicted_bytes() if made.cost is not None else known.bytes,
        by_guidance=by_guidance or known.by_guidance,
        exact=known.exact
        and known.exact.changed(
            to_plain=math.hypot(known.exact.to_plain, added),
            to_exact=math.hypot(known.exact.to_exact, added),
        ),
    )
    return made.changed(prediction=prediction)


def rounding_error(calibration: Calibration, schedule: Schedule, storage: Storage) -> float:
    """Return the relative L2 error of the final sample that rounding alone makes.

    Args:
        calibration: What was measured of the sites that the schedule is of.
        schedule: Says what is combined.
        storage: How it is kept; exact where nothing is rounded.

    Returns:
        At least 0; 0 where the calibration has no sensitivities.
    """
    if calibration.dynamics is None or not calibration.dynamics.measured:
        return 0.0
    cost, width = calibration.cost, width_of(calibration.fingerprint.dtype)
    if schedule.whole:
        share = storage.rounding(cost.output_width or width)
        return share * combined(_of_outputs(calibration.dynamics, schedule), together=False)
    if lacks_sensitivities(calibration):
        return 0.0
    shares = np.array([storage.rounding(each.width or width) for each in cost.sites])
    sizes = mean_products(calibration)[:, :, 0]
    mixed = [
        _mixed(schedule.timeline(site), size)
        for site, size in zip(calibration.sites, sizes, strict=True)
    ]
    effects = shares[:, None] * np.array(mixed) * sensitivity(calibration)
    return combined(effects, together=False)


def _mixed(timeline: Timeline, sizes: Array) -> Array:
    """Return the root of the sum of squared terms of what is kept, (E,); 0 where none is used.

    Args:
        timeline: What each fill combines.
        sizes: Mean squares of the outputs, (E,).
    """
    kept = [*zip(timeline.weights, timeline.sources, strict=True)]
    for evaluation, sources in timeline.earlier.items():
        kept[evaluation] = timeline.corrections[evaluation][1:], sources
    squares = [
        sum(w * w * sizes[j] for w, j in zip(weights, sources, strict=True)) if sources else 0.0
        for weights, sources in kept
    ]
    return np.sqrt(np.array(squares))


def _of_outputs(dynamics: Dynamics, schedule: Schedule) -> Array:
    """Return the effects of rounding outputs and guidance differences, (passes + 1, E)."""
    evaluations, weights = dynamics.evaluations, dynamics.response.weights
    gram = joined(dynamics.gram) / dynamics.samples
    passes = weights.shape[1]
    starts = [evaluations + 1 + number * evaluations for number in range(passes)]
    own = np.diagonal(gram)
    sizes = [own[start : start + evaluations] for start in starts]
    effect, row = dynamics.final_sensitivity(), schedule.timeline(DENOISER)
    anchors = schedule.fill(DENOISER).anchors
    latent = [
        anchors.get(i, 0.0) ** 2 * own[sources[0]] if sources else 0.0
        for i, sources in enumerate(row.sources)
    ]
    found = [
        effect
        * np.abs(weights[:evaluations, number])
        * np.hypot(_mixed(row, size), np.sqrt(np.array(latent)))
        for number, size in enumerate(sizes)
    ]
    if passes == 2 and GUIDANCE.kind in schedule.rows:
        cross = np.array([gram[starts[0] + i, starts[1] + i] for i in range(evaluations)])
        difference = np.maximum(sizes[0] + sizes[1] - 2.0 * cross, 0.0)
        share = np.abs(weights[:evaluations, 1 - (dynamics.conditional or 0)])
        found.append(effect * share * _mixed(schedule.timeline(GUIDANCE), difference))
    return np.array(found)
