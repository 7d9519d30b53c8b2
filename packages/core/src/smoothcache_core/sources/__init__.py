"""Schedule sources: one file per way of making a schedule."""

from smoothcache_core.sources.evaluations import WholeSettings as WholeSettings, whole as whole
from smoothcache_core.sources.interval import interval as interval
from smoothcache_core.sources.prediction import with_prediction as with_prediction
from smoothcache_core.sources.sites import SiteLimits as SiteLimits, planned as planned
from smoothcache_core.sources.smooth import (
    scan as scan,
    smooth as smooth,
    smooth_to_compute as smooth_to_compute,
)

__all__ = [
    "SiteLimits",
    "WholeSettings",
    "interval",
    "planned",
    "scan",
    "smooth",
    "smooth_to_compute",
    "whole",
    "with_prediction",
]
