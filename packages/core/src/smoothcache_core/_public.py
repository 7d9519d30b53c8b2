"""The public names of this package, which gives them out as its own."""

from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern, SpanPattern
from smoothcache_core.adapters.search import find_adapter
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Site
from smoothcache_core.calibrating.calibrate import calibrate
from smoothcache_core.calibrating.sharded import calibrate_sharded
from smoothcache_core.calibrating.transfer import transfer
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.guidance import announcing_guidance
from smoothcache_core.errors import (
    AdapterError,
    AttachError,
    CalibrationError,
    EvaluationError,
    PipelineError,
    ScheduleError,
    SmoothCacheError,
    SmoothCacheWarning,
)
from smoothcache_core.evaluation.decoded import RecentlyDecoded, class_divergence, class_summaries
from smoothcache_core.evaluation.evaluate import evaluate
from smoothcache_core.fills import FillRule, linear, reuse, taylor
from smoothcache_core.fitting.fit import fit
from smoothcache_core.fitting.refine import refine
from smoothcache_core.metrics import frechet_distance, kl_divergence, psnr_db, relative_l2
from smoothcache_core.pipelines.announcing import pipeline_announcing
from smoothcache_core.pipelines.pipelines import PipelineCaching, PipelineParts
from smoothcache_core.planning.front import Choice, Point
from smoothcache_core.planning.limits import PlanLimits
from smoothcache_core.planning.plan import Planner, auto, plan
from smoothcache_core.reports.error_curves import error_curves
from smoothcache_core.reports.peers import load_peers
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import MetricResult, ReportRow
from smoothcache_core.reports.skip_map import skip_map
from smoothcache_core.reports.style import save_figure
from smoothcache_core.reports.trade_off import kept_promises, trade_off
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach, cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.seeding import devices_of, seeded_globally
from smoothcache_core.schedule.cost import Cost, SiteCost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Prediction, Source
from smoothcache_core.schedule.schedule import Fill, Schedule
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
