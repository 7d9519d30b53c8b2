"""Calibrated caching for diffusion transformers: calibrate, plan, apply, judge.

model + adapter --calibrate--> Calibration --plan--> Schedule --cached--> faster model
"""

from importlib.metadata import version

from smoothcache_core._cached import (
    Attachment as Attachment,
    CacheStats as CacheStats,
    attach as attach,
    cached as cached,
)
from smoothcache_core._calibrate import calibrate as calibrate
from smoothcache_core._calibration import Calibration as Calibration
from smoothcache_core._clock import Scheduler as Scheduler
from smoothcache_core._cost import Cost as Cost, SiteCost as SiteCost
from smoothcache_core._errors import (
    AdapterError as AdapterError,
    AttachError as AttachError,
    CalibrationError as CalibrationError,
    ScheduleError as ScheduleError,
    SmoothCacheError as SmoothCacheError,
    SmoothCacheWarning as SmoothCacheWarning,
)
from smoothcache_core._fingerprint import Fingerprint as Fingerprint
from smoothcache_core._schedule import Schedule as Schedule, Source as Source
from smoothcache_core._sites import (
    Adapter as Adapter,
    PatternAdapter as PatternAdapter,
    Site as Site,
    SitePattern as SitePattern,
)
from smoothcache_core.sources import (
    interval as interval,
    scan as scan,
    smooth as smooth,
    smooth_to_compute as smooth_to_compute,
)

__version__ = version("smoothcache-core")

__all__ = [name for name in dir() if not name.startswith("_")]
