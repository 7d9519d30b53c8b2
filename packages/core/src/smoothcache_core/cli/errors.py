"""What commands raise beyond the errors of the library."""

from smoothcache_core._errors import SmoothCacheError


class CommandError(SmoothCacheError):
    """What a command was asked for is impossible, or makes no sense."""
