"""Everything this library raises or warns with.

SmoothCacheError
+-- AdapterError       an adapter does not fit the model
+-- AttachError        a cache cannot be put on, or taken off, a model
+-- CalibrationError   a calibration cannot be recorded, merged or read
+-- EvaluationError    policies cannot be compared, or a report cannot be read
+-- OutputError        a file or a folder cannot be written
+-- PipelineError      a pipeline cannot be loaded, or does not take what it was asked for
+-- RouterError        learned routers cannot be trained, or do not fit the model
+-- SamplerError       a sampler does not return what it must, or cannot be
+-- ScheduleError      a schedule is invalid or does not fit the model or the run
SmoothCacheWarning     something that a user must know; sampling goes on
"""

import inspect
import warnings
from types import FrameType


class SmoothCacheError(Exception):
    """Base class of every error of this library."""


class AdapterError(SmoothCacheError):
    """An adapter does not fit the model it was given."""


class AttachError(SmoothCacheError):
    """A cache cannot be attached to, or detached from, a model."""


class CalibrationError(SmoothCacheError):
    """A calibration cannot be recorded, merged, saved or loaded."""


class EvaluationError(SmoothCacheError):
    """Policies cannot be compared, or a report cannot be written or read."""


class OutputError(SmoothCacheError):
    """A file or a folder cannot be written; what was there before is as it was."""


class PipelineError(SmoothCacheError):
    """A pipeline cannot be loaded, or does not take what it was asked for."""


class RouterError(SmoothCacheError):
    """Learned routers cannot be trained, or do not fit the model."""


class SamplerError(SmoothCacheError):
    """A sampler does not return the final latent where it must, or has impossible settings."""


class ScheduleError(SmoothCacheError):
    """A schedule is invalid, or does not fit the model or the run."""


class SmoothCacheWarning(UserWarning):
    """Something that the user must know about; sampling goes on.

    The result may differ from what was planned, or caching may not help. To stop instead:
    `warnings.simplefilter("error", SmoothCacheWarning)`.
    """


_BETWEEN = ("accelerate", "contextlib", "diffusers", "torch")
"""Packages whose code may stand between this library's and the user's in a stack of calls."""


def warn(message: str) -> None:
    """Warn the user, naming the line of the user's own code that led to it.

    Args:
        message: What the user reads.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and _is_inside(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SmoothCacheWarning, stacklevel=level)


def _is_inside(frame: FrameType) -> bool:
    """Whether a call is of this library, or of one that stands between it and the user."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package.startswith("smoothcache_") or package in _BETWEEN


class CommandError(SmoothCacheError):
    """What a command was asked for is impossible, or makes no sense."""
