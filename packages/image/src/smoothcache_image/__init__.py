"""SmoothCache for image diffusion transformers: adapters of image models, and diffusers pipelines.

The names stand in `__init__.pyi`; each is loaded when it is first used, so that
`smoothcache-image --help` does not wait for torch.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("smoothcache-image")
