"""A schedule at work on a live model. Knows no calibration."""

from smoothcache_core.runtime.attachment import Attachment, attachment_of
from smoothcache_core.runtime.cached import attach, cached
from smoothcache_core.runtime.store import CacheStats

__all__ = [
    "Attachment",
    "CacheStats",
    "attach",
    "attachment_of",
    "cached",
]
