"""Schedule sources: one file per way of making a schedule."""

from smoothcache_core.sources._interval import interval as interval
from smoothcache_core.sources._smooth import (
    scan as scan,
    smooth as smooth,
    smooth_to_compute as smooth_to_compute,
)

__all__ = ["interval", "scan", "smooth", "smooth_to_compute"]
