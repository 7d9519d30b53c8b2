"""Which call of the denoiser is this: its evaluation, branch and run, told by evidence."""

from smoothcache_core.calls.function import FunctionDenoiser

__all__ = ["FunctionDenoiser"]
