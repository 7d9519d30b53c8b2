"""The time of a timestep: log-SNR where the scheduler tells it, else what grows like it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from smoothcache_core.numerics.arrays import Array

Time = Callable[[Array], Array]
"""Gives the time of timesteps, larger for later ones or the other way round."""


_FLOW_END = 1e-3  # keeps the log-SNR at the ends of a flow, which is infinite, within 6.9 of 0


_TINY = 1e-8  # keeps the logarithm of an alpha of 0 or 1 finite


def time_of(scheduler: object, timesteps: Array) -> Time:
    """Return the time axis of a solver: log-SNR, or if that is not known the timesteps.

    Args:
        scheduler: As it is after a run, or None.
        timesteps: The timesteps that the denoiser was given in that run, (E,).
    """
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if config.get("use_flow_sigmas") or alphas is None:
        return _flow_time(scheduler, timesteps) or _as_they_are
    return _diffusion_time(scheduler, timesteps, _numbers(alphas)) or _as_they_are


def _as_they_are(timesteps: Array) -> Array:
    return timesteps


def _flow_time(scheduler: object, seen: Array) -> Time | None:
    """Return the log-SNR of x = (1 - s) data + s noise, if s is in the scheduler's `sigmas`."""
    sigmas = _of_run(getattr(scheduler, "sigmas", None), len(seen), ends=1)
    line = None if sigmas is None else _line(seen, sigmas)
    if sigmas is None or line is None or sigmas.min() < 0.0 or sigmas.max() > 1.0:
        return None

    def time(timesteps: Array) -> Array:
        sigma = np.clip(np.polyval(line, timesteps), 0.0, 1.0)
        return np.log((1.0 - sigma + _FLOW_END) / (sigma + _FLOW_END))

    return time


def _diffusion_time(scheduler: object, seen: Array, alphas: Array) -> Time | None:
    """Return the log-SNR of x = sqrt(a) data + sqrt(1 - a) noise, a given for whole timesteps."""
    own = _of_run(getattr(scheduler, "timesteps", None), len(seen), ends=0)
    line = None if own is None else _line(seen, own)
    if line is None:
        return None
    known = np.log(np.maximum(alphas, _TINY) / np.maximum(1.0 - alphas, _TINY))

    def time(timesteps: Array) -> Array:
        return np.interp(np.polyval(line, timesteps), np.arange(len(known)), known)

    return time


def _of_run(values: Any, evaluations: int, *, ends: int) -> Array | None:
    """Return what belongs to the evaluations of a run, which may begin in the middle."""
    if values is None or len(values) < evaluations + ends:
        return None
    return _numbers(values)[-evaluations - ends : len(values) - ends]


def _numbers(values: Any) -> Array:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _line(seen: Array, own: Array) -> Array | None:
    """Return the line (2,) that leads from the denoiser's timesteps to the scheduler's numbers."""
    if np.ptp(seen) == 0.0:
        return None
    line = np.polyfit(seen, own, 1)
    off = np.abs(np.polyval(line, seen) - own).max()
    return line if off <= 1e-3 * np.ptp(own) else None
