"""Schedule sources: one file per way of making a schedule."""

from smoothcache_core.sources.evaluations import plan_evaluations
from smoothcache_core.sources.interval import interval
from smoothcache_core.sources.prediction import with_prediction
from smoothcache_core.sources.sites import plan_sites
from smoothcache_core.sources.smooth import scan, smooth, smooth_to_compute

__all__ = [
    "interval",
    "plan_evaluations",
    "plan_sites",
    "scan",
    "smooth",
    "smooth_to_compute",
    "with_prediction",
]
