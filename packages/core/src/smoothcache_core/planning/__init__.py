"""The dial: from a calibration and a budget to the best schedule."""

from smoothcache_core.planning.front import Choice, Point
from smoothcache_core.planning.plan import Planner, auto, plan
from smoothcache_core.schedule.limits import Limits

__all__ = [
    "Choice",
    "Limits",
    "Planner",
    "Point",
    "auto",
    "plan",
]
