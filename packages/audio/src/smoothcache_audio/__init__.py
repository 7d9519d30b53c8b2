"""SmoothCache for audio diffusion transformers: no adapters in this version yet.

Here is the place of the adapters of audio models (Stable Audio) and of the
metrics of audio. Until they are here, cache a audio model with `smoothcache_core` and an
adapter of your own.
"""

from importlib.metadata import version

__version__ = version("smoothcache-audio")
