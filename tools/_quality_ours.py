"""This library's own policies in the quality benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smoothcache_core import Calibration, Schedule
from smoothcache_image._sampling import Sampler


@dataclass(frozen=True, kw_only=True)
class Material:
    """What schedules may be made from.

    Attributes:
        calibration: What was measured on the calibration samples.
        sampler: Samples them, all in one run, from a pipeline that nobody else uses.
        seeds: Seeds of their runs.
    """

    calibration: Calibration
    sampler: Sampler
    seeds: Sequence[int]


Plan = Callable[[Material, float], Schedule]
"""Returns a schedule for a compute budget in (0, 1); a `ScheduleError` says that it cannot."""


def our_policies() -> Mapping[str, Plan]:
    """Return this library's policies by their names in records."""
    return {}
