"""How one run of a sampler is made, recorded and seeded."""

from smoothcache_core.sampling.conditioned import ConditionedSampler
from smoothcache_core.sampling.sampler import Sampler

__all__ = ["ConditionedSampler", "Sampler"]
