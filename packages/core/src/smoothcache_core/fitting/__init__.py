"""Improving a schedule on the trajectory that the cached run really takes."""

from smoothcache_core.fitting.fit import fit
from smoothcache_core.fitting.refine import refine

__all__ = [
    "fit",
    "refine",
]
