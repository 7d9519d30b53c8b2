"""What a user should know before relying on the prediction of a plan."""

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.promises import LEAST_EXPLAINED, explained_share

FEW_SAMPLES = 4
"""Samples of a calibration below which a plan is told to rest on few. Plans of the shipped models
got no better from more than a dozen; two or three may be unlike the others."""


_ALL = 1.0  # relative L2: as far from the plain run's sample as a black picture


def cautions(calibration: Calibration, schedule: Schedule) -> list[str]:
    """Return what to warn of, a sentence or two each.

    Args:
        calibration: What was planned from.
        schedule: The plan, with a prediction.

    Returns:
        Empty where the prediction is as good as predictions are.
    """
    prediction = schedule.prediction
    if prediction is None or prediction.low is None or prediction.high is None:
        return []
    told: list[str] = []
    between = f"{prediction.low:.2g} to {prediction.high:.2g}"
    if calibration.samples < FEW_SAMPLES:
        single = calibration.samples == 1
        counted, were = (
            ("1 sample", "was") if single else (f"{calibration.samples} samples", "were")
        )
        told.append(
            f"only {counted} {were} calibrated, so the prediction is uncertain: error "
            f"{prediction.error:.2g}, 95 % interval {between}; calibrate 8 samples or more"
        )
    share = explained_share(calibration)
    if share < LEAST_EXPLAINED:
        told.append(
            f"the calibration explains only {share:.0%} of the model's response to errors, so the "
            f"prediction is unreliable: the mean error may be {between}, that of single samples "
            "far larger. Measure it with `fit` on 8 samples or more"
        )
    if (aimed := prediction.exact) is not None and not aimed.gains:
        told.append(f"{aimed.no_gain('are predicted to end')}, or plan toward the plain run")
    if prediction.high >= _ALL:
        told.append(
            f"the predicted error {prediction.error:.2g} ({between}) is too large to be reliable, "
            "and cached samples may not resemble the uncached ones; allow more compute, or measure "
            "it with `fit`"
        )
    return told
