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
    EvaluationError as EvaluationError,
    ScheduleError as ScheduleError,
    SmoothCacheError as SmoothCacheError,
    SmoothCacheWarning as SmoothCacheWarning,
)
from smoothcache_core._evaluate import evaluate as evaluate
from smoothcache_core._fingerprint import Fingerprint as Fingerprint
from smoothcache_core._plots import (
    error_curves as error_curves,
    save_figure as save_figure,
    skip_map as skip_map,
    trade_off as trade_off,
)
from smoothcache_core._report import (
    MetricResult as MetricResult,
    Report as Report,
    ReportRow as ReportRow,
)
from smoothcache_core._schedule import Schedule as Schedule, Source as Source
from smoothcache_core._sites import (
    Adapter as Adapter,
    PatternAdapter as PatternAdapter,
    Site as Site,
    SitePattern as SitePattern,
)
from smoothcache_core.metrics import (
    frechet_distance as frechet_distance,
    psnr_db as psnr_db,
    relative_l2 as relative_l2,
)
from smoothcache_core.sources import (
    interval as interval,
    scan as scan,
    smooth as smooth,
    smooth_to_compute as smooth_to_compute,
)

__version__ = version("smoothcache-core")

__all__ = [name for name in dir() if not name.startswith("_")]
