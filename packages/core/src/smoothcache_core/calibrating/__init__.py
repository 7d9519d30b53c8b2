"""Measuring: run the unmodified sampler and record what caching needs to know."""

from smoothcache_core.calibrating.calibrate import calibrate
from smoothcache_core.calibrating.sharded import calibrate_sharded
from smoothcache_core.calibrating.transfer import transfer

__all__ = [
    "calibrate",
    "calibrate_sharded",
    "transfer",
]
