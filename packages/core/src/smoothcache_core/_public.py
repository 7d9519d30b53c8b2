"""The public names of this package, which gives them out as its own."""

from smoothcache_core._announced import announcing_guidance, pipeline_announcing
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
from smoothcache_core._decoded import RecentlyDecoded, class_divergence, class_summaries
from smoothcache_core._distributed import calibrate_sharded
from smoothcache_core._error_plots import kept_promises, trade_off
from smoothcache_core._errors import (
    AdapterError,
    AttachError,
    CalibrationError,
    EvaluationError,
    PipelineError,
    ScheduleError,
    SmoothCacheError,
    SmoothCacheWarning,
)
from smoothcache_core._evaluate import evaluate
from smoothcache_core._find_adapter import find_adapter
from smoothcache_core._fingerprint import Fingerprint
from smoothcache_core._fit import fit
from smoothcache_core._peers import load_peers
from smoothcache_core._pipelines import PipelineCaching, PipelineParts
from smoothcache_core._plan import Choice, PlanLimits, Planner, Point, auto, plan
from smoothcache_core._plots import (
    error_curves,
    save_figure,
    skip_map,
)
from smoothcache_core._refine import refine
from smoothcache_core._report import (
    MetricResult,
    Report,
    ReportRow,
)
from smoothcache_core._schedule import Fill, Prediction, Schedule, Source
from smoothcache_core._seeding import devices_of, seeded_globally
from smoothcache_core._sites import (
    DENOISER,
    GUIDANCE,
    Adapter,
    PatternAdapter,
    Site,
    SitePattern,
    SpanPattern,
)
from smoothcache_core._transfer import transfer
from smoothcache_core.fills import FillRule, linear, reuse, taylor
from smoothcache_core.metrics import (
    frechet_distance,
    kl_divergence,
    psnr_db,
    relative_l2,
)
from smoothcache_core.sources import (
    SiteLimits,
    WholeSettings,
    interval,
    planned,
    scan,
    smooth,
    smooth_to_compute,
    whole,
    with_prediction,
)

__all__ = [
    "DENOISER",
    "GUIDANCE",
    "Adapter",
    "AdapterError",
    "AttachError",
    "Attachment",
    "CacheStats",
    "Calibration",
    "CalibrationError",
    "Choice",
    "Cost",
    "EvaluationError",
    "Fill",
    "FillRule",
    "Fingerprint",
    "MetricResult",
    "PatternAdapter",
    "PipelineCaching",
    "PipelineError",
    "PipelineParts",
    "PlanLimits",
    "Planner",
    "Point",
    "Prediction",
    "RecentlyDecoded",
    "Report",
    "ReportRow",
    "Schedule",
    "ScheduleError",
    "Scheduler",
    "Site",
    "SiteCost",
    "SiteLimits",
    "SitePattern",
    "SmoothCacheError",
    "SmoothCacheWarning",
    "Source",
    "SpanPattern",
    "WholeSettings",
    "announcing_guidance",
    "attach",
    "auto",
    "cached",
    "calibrate",
    "calibrate_sharded",
    "class_divergence",
    "class_summaries",
    "devices_of",
    "error_curves",
    "evaluate",
    "find_adapter",
    "fit",
    "frechet_distance",
    "interval",
    "kept_promises",
    "kl_divergence",
    "linear",
    "load_peers",
    "pipeline_announcing",
    "plan",
    "planned",
    "psnr_db",
    "refine",
    "relative_l2",
    "reuse",
    "save_figure",
    "scan",
    "seeded_globally",
    "skip_map",
    "smooth",
    "smooth_to_compute",
    "taylor",
    "trade_off",
    "transfer",
    "whole",
    "with_prediction",
]
