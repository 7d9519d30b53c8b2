"""Schedule sources: one file per way of making a schedule."""

from smoothcache_core.sources._interval import interval as interval
from smoothcache_core.sources._planned import (
    SiteLimits as SiteLimits,
    planned as planned,
    with_prediction as with_prediction,
)
from smoothcache_core.sources._smooth import (
    scan as scan,
    smooth as smooth,
    smooth_to_compute as smooth_to_compute,
)
from smoothcache_core.sources._whole import WholeSettings as WholeSettings, whole as whole

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
