"""What this package raises beyond the errors of the core."""

from smoothcache_core import SmoothCacheError


class PipelineError(SmoothCacheError):
    """A pipeline cannot be loaded, or does not take what it was asked for."""


class PlanError(SmoothCacheError):
    """What was asked for is no plan."""
