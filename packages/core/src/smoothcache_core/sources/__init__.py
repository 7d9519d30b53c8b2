"""Schedule sources: one file per way of making a schedule, one line each in `SOURCES`."""

from smoothcache_core.sources.accumulated import ACCUMULATED, accumulate, block_caching
from smoothcache_core.sources.deepcache import deepcache, deepcache_adapter
from smoothcache_core.sources.evaluations import (
    UNCONDITIONAL_PASSES,
    WHOLE_EVALUATIONS,
    plan_evaluations,
)
from smoothcache_core.sources.frozen import magcache, teacache
from smoothcache_core.sources.interval import INTERVAL, interval
from smoothcache_core.sources.kind import SourceKind
from smoothcache_core.sources.prediction import with_prediction
from smoothcache_core.sources.pyramid import pyramid
from smoothcache_core.sources.sites import (
    BY_BLOCK,
    BY_EVALUATION,
    BY_KIND,
    BY_SITE,
    BY_SPAN,
    plan_sites,
)
from smoothcache_core.sources.smooth import SMOOTH, scan, smooth, smooth_to_compute
from smoothcache_core.sources.storing import stored
from smoothcache_core.sources.tgate import tgate

SOURCES: tuple[SourceKind, ...] = (
    WHOLE_EVALUATIONS,
    UNCONDITIONAL_PASSES,
    BY_SITE,
    BY_KIND,
    BY_EVALUATION,
    BY_BLOCK,
    BY_SPAN,
    SMOOTH,
    INTERVAL,
    ACCUMULATED,
)
"""Every source, in the order in which `auto` tries them and reports colour them."""

__all__ = [
    "SOURCES",
    "SourceKind",
    "accumulate",
    "block_caching",
    "deepcache",
    "deepcache_adapter",
    "interval",
    "magcache",
    "plan_evaluations",
    "plan_sites",
    "pyramid",
    "scan",
    "smooth",
    "smooth_to_compute",
    "stored",
    "teacache",
    "tgate",
    "with_prediction",
]
