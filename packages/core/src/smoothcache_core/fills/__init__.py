"""Fill rules: one file per way of making a skipped output from computed ones."""

from smoothcache_core.fills._linear import linear as linear
from smoothcache_core.fills._reuse import reuse as reuse
from smoothcache_core.fills._rule import (
    FillRule as FillRule,
    residual as residual,
    rounded as rounded,
)
from smoothcache_core.fills._taylor import taylor as taylor

__all__ = ["FillRule", "linear", "residual", "reuse", "rounded", "taylor"]
