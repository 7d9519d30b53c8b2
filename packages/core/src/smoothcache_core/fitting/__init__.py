"""Improving a schedule on the trajectory that the cached run really takes."""

from smoothcache_core.fitting.fit import fit

__all__ = [
    "fit",
]
