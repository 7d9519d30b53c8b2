"""Measuring: run the unmodified sampler and record what caching needs to know."""

from smoothcache_core.calibrating.calibrate import calibrate
from smoothcache_core.calibrating.shapes import cost_from_shapes
from smoothcache_core.calibrating.transfer import transfer

__all__ = [
    "calibrate",
    "cost_from_shapes",
    "transfer",
]
