"""The strength of guidance of a run, which a denoiser that batches its passes is not told.

Whoever calls the pipeline knows it, and says so around the call; what is calibrated or cached
inside takes it into its fingerprint.
"""

import functools
import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

ARGUMENTS = ("guidance_scale", "true_cfg_scale", "cfg_scale")
"""What pipelines and denoisers call the strength of classifier-free guidance."""

_ANNOUNCED: ContextVar[Mapping[str, float] | None] = ContextVar("guidance", default=None)


def guidance_in(arguments: Mapping[str, Any]) -> dict[str, float]:
    """Return the strengths of guidance among named arguments."""
    return {
        name: float(arguments[name]) for name in ARGUMENTS if isinstance(arguments.get(name), Real)
    }


def announced_guidance() -> Mapping[str, float]:
    """Return what the caller of the run announced, empty if nothing."""
    return _ANNOUNCED.get() or {}


@contextmanager
def announcing_guidance(**scales: float) -> Generator[None]:
    """Tell everything that is calibrated or cached inside the strength of guidance.

    Schedules then remember it, and a run at another strength is warned about. The pipeline
    functions of the modality packages do this by themselves.

    Example:
        >>> with announcing_guidance(guidance_scale=4.0):
        ...     latents = my_sampling_loop(model, scale=4.0)

    Args:
        scales: Strengths by name, 1 for none.
    """
    token = _ANNOUNCED.set({**announced_guidance(), **guidance_in(scales)})
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


@contextmanager
def pipeline_announcing(pipe: Any) -> Generator[None]:
    """Let every call of a pipeline announce the guidance that it was called with.

    The pipeline gets a subclass of its own class while the block runs, under the same name.
    """
    own = type(pipe)
    signature = inspect.signature(own.__call__)
    if not set(ARGUMENTS) & set(signature.parameters):
        yield
        return

    @functools.wraps(own.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        with announcing_guidance(**guidance_in(bound.arguments)):
            return own.__call__(self, *args, **kwargs)

    names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    pipe.__class__ = type(own.__name__, (own,), {**names, "__call__": call})
    try:
        yield
    finally:
        pipe.__class__ = own
