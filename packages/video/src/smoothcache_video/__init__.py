"""SmoothCache for video diffusion transformers: adapters, diffusers pipelines, and Open-Sora.

The names stand in `__init__.pyi`; each is loaded when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("smoothcache-video")
