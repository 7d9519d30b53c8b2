"""SmoothCache for video diffusion transformers: no adapters in this version yet.

Here is the place of the adapters of video models (Latte, CogVideoX, Open-Sora) and of the
metrics of video. Until they are here, cache a video model with `smoothcache_core` and an
adapter of your own.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("smoothcache-video")
