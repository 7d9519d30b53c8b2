"""A schedule at work on a live model. Knows no calibration."""

from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach, cached
from smoothcache_core.runtime.store import CacheStats

__all__ = [
    "Attachment",
    "CacheStats",
    "attach",
    "cached",
]
