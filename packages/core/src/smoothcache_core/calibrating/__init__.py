"""Measuring: run the unmodified sampler and record what caching needs to know."""
