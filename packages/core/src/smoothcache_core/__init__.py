"""Calibrated caching for diffusion transformers: calibrate, plan, apply, judge.

    model + adapter --calibrate--> Calibration --plan--> Schedule --cached--> faster model

The names stand in `__init__.pyi`; each is loaded when it is first used, so that help on a command
line does not wait for torch. Everything else is in the folder of its stage: `fills`, `sources`,
`planning`, `reports` and so on.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("smoothcache-core")
