"""The strength of guidance of a run, which a denoiser that batches its passes is not told.

Whoever calls the pipeline knows it, and says so around the call; what is calibrated or cached
inside takes it into its fingerprint.
"""

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
        >>> with announcing_guidance(guidance_scale=4.0), cached(model, adapter, schedule):
        ...     latent = run(0)

    Args:
        scales: Strengths by name, 1 for none.
    """
    token = _ANNOUNCED.set({**announced_guidance(), **guidance_in(scales)})
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)
