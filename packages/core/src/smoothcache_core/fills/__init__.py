"""Fill rules: one file per way of making a skipped output from computed ones."""

from smoothcache_core.fills.linear import linear as linear
from smoothcache_core.fills.reuse import reuse as reuse
from smoothcache_core.fills.rule import (
    FillRule as FillRule,
    residual as residual,
    rounded as rounded,
)
from smoothcache_core.fills.taylor import taylor as taylor

__all__ = ["FillRule", "linear", "residual", "reuse", "rounded", "taylor"]
