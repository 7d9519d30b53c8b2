"""How one run of a sampler is made, recorded and seeded."""

from smoothcache_core.sampling.sampler import Sampler

__all__ = ["Sampler"]
