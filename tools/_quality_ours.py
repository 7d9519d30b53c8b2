"""This library's own policies in the quality benchmark."""

from collections.abc import Mapping

from smoothcache_core import Calibration, Schedule


def our_policies(calibration: Calibration, budget: float) -> Mapping[str, Schedule]:
    """Return this library's schedules for a compute budget, by the name of the policy.

    Args:
        calibration: What was measured on the calibration samples.
        budget: MACs over those of the plain run, in (0, 1).
    """
    del calibration, budget
    return {}
