"""Calibrated caching for diffusion transformers: calibrate, plan, apply, judge.

model + adapter --calibrate--> Calibration --plan--> Schedule --cached--> faster model

The names are loaded when one of them is first used, so that help on a command line, which comes
from `smoothcache_core.cli`, does not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._public import *  # noqa: F403 the list of names is there

__version__ = version("smoothcache-core")


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module(f"{__name__}._public")
    if name in globals():  # a module that came along, such as `metrics`
        return globals()[name]
    if not hasattr(public, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(public, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
