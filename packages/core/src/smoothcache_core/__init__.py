"""Calibrated caching for diffusion transformers: calibrate, plan, apply, judge.

model + adapter --calibrate--> Calibration --plan--> Schedule --cached--> faster model
"""

from importlib.metadata import version

from smoothcache_core._cached import (
    Attachment,
    CacheStats,
    attach,
    cached,
)
from smoothcache_core._calibrate import calibrate
from smoothcache_core._calibration import Calibration
from smoothcache_core._clock import Scheduler
from smoothcache_core._cost import Cost, SiteCost
from smoothcache_core._errors import (
    AdapterError,
    AttachError,
    CalibrationError,
    EvaluationError,
    ScheduleError,
    SmoothCacheError,
    SmoothCacheWarning,
)
from smoothcache_core._evaluate import evaluate
from smoothcache_core._fingerprint import Fingerprint
from smoothcache_core._plots import (
    error_curves,
    save_figure,
    skip_map,
    trade_off,
)
from smoothcache_core._report import (
    MetricResult,
    Report,
    ReportRow,
)
from smoothcache_core._schedule import Schedule, Source
from smoothcache_core._sites import (
    Adapter,
    PatternAdapter,
    Site,
    SitePattern,
)
from smoothcache_core.metrics import (
    frechet_distance,
    psnr_db,
    relative_l2,
)
from smoothcache_core.sources import (
    interval,
    scan,
    smooth,
    smooth_to_compute,
)

__version__ = version("smoothcache-core")

__all__ = [
    "Adapter",
    "AdapterError",
    "AttachError",
    "Attachment",
    "CacheStats",
    "Calibration",
    "CalibrationError",
    "Cost",
    "EvaluationError",
    "Fingerprint",
    "MetricResult",
    "PatternAdapter",
    "Report",
    "ReportRow",
    "Schedule",
    "ScheduleError",
    "Scheduler",
    "Site",
    "SiteCost",
    "SitePattern",
    "SmoothCacheError",
    "SmoothCacheWarning",
    "Source",
    "attach",
    "cached",
    "calibrate",
    "error_curves",
    "evaluate",
    "frechet_distance",
    "interval",
    "psnr_db",
    "relative_l2",
    "save_figure",
    "scan",
    "skip_map",
    "smooth",
    "smooth_to_compute",
    "trade_off",
]
