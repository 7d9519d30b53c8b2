# What is known about a family of models.
from .adapters import Adapter, PatternAdapter, SitePattern, SpanPattern

# Measure: a sampler run, and what was learned of it.
from .calibrating import calibrate, transfer
from .calibration.calibration import Calibration

# What is refused, and what is worth knowing.
from .errors import SmoothCacheError, SmoothCacheWarning

# Judge: policies beside the plain run.
from .evaluation import evaluate

# Improve a schedule on its own trajectory; run some, to see how far predictions are off.
from .fitting import fit, verify

# Plan: the dial.
from .planning import plan
from .reports import Report

# Apply: run by a schedule.
from .runtime import attach, cached

# How one run is made.
from .sampling import Sampler

# The portable description of what is computed.
from .schedule import Schedule

__all__ = [
    "Adapter",
    "Calibration",
    "PatternAdapter",
    "Report",
    "Sampler",
    "Schedule",
    "SitePattern",
    "SmoothCacheError",
    "SmoothCacheWarning",
    "SpanPattern",
    "attach",
    "cached",
    "calibrate",
    "evaluate",
    "fit",
    "plan",
    "transfer",
    "verify",
]
__version__: str
