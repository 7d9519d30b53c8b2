"""Judging: every schedule beside the plain run, on the same seeds."""

from smoothcache_core.evaluation.decoded import RecentlyDecoded, class_divergence, class_summaries
from smoothcache_core.evaluation.evaluate import evaluate

__all__ = [
    "RecentlyDecoded",
    "class_divergence",
    "class_summaries",
    "evaluate",
]
