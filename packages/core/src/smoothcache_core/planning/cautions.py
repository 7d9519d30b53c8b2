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
        counted = "1 sample" if calibration.samples == 1 else f"{calibration.samples} samples"
        told.append(
            f"this plan rests on {counted}, which tell little of others: its error is "
            f"{prediction.error:.2g} with 95 % confidence of {between}; calibrate with more seeds, "
            "8 samples or more"
        )
    share = explained_share(calibration)
    if share < LEAST_EXPLAINED:
        told.append(
            f"the denoiser answers to errors in ways that this calibration explains to {share:.0%} "
            "only: single samples may err many times as much as most, and the mean error may be "
            f"{between}; measure it by `fit` with 8 samples or more"
        )
    if prediction.high >= _ALL:
        told.append(
            f"an error of {prediction.error:.2g} ({between}) is beyond what can be foretold: "
            "cached samples may be unlike the plain ones; compute more, or measure it by `fit`"
        )
    return told
