"""SmoothCache for audio diffusion transformers: stable-audio-tools, and diffusers' pipelines.

The names stand in `__init__.pyi`; each is loaded when it is first used, so that
`smoothcache-audio --help` does not wait for torch.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("smoothcache-audio")
