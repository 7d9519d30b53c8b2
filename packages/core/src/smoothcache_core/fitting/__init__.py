"""Improving a schedule on the trajectory that the cached run really takes."""

from smoothcache_core.fitting.fit import fit
from smoothcache_core.fitting.verify import verify

__all__ = [
    "fit",
    "verify",
]
