"""What this package raises beyond the errors of the core."""

from smoothcache_core.errors import PipelineError

__all__ = ["PipelineError"]
