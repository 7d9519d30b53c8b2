"""What a scheduler says of the solver that it is."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from smoothcache_core.schedule.provenance import Setting

_IN_NAME = (
    "algorithm_type",
    "solver_order",
    "timestep_spacing",
    "use_karras_sigmas",
    "prediction_type",
)

_HARMLESS = ("noise_sampler_seed",)
"""Settings that differ from run to run, or decide nothing."""

_ONLY_WITH: Mapping[str, tuple[str, ...]] = {
    "thresholding": ("dynamic_thresholding_ratio", "sample_max_value"),
    "clip_sample": ("clip_sample_range",),
    "use_flow_sigmas": ("flow_shift",),
    "use_dynamic_shifting": (
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "time_shift_type",
    ),
}
"""Settings that diffusers' schedulers look at only where another one is on."""

_ONLY_WITHOUT: Mapping[str, tuple[str, ...]] = {
    "use_dynamic_shifting": ("shift",),
    "trained_betas": ("beta_start", "beta_end", "beta_schedule"),
}
"""Settings that they look at only where another one is off."""

_LONGEST = 64  # characters of a list that are kept as they are; trained betas are 1000 numbers


def solver_name(scheduler: object) -> str:
    """Return the class name of a scheduler and the settings that solvers are known by.

    Args:
        scheduler: A scheduler; its settings are `config`, if it has that.
    """
    config = _config(scheduler)
    settings = [f"{name}={config[name]}" for name in _IN_NAME if name in config]
    return f"{type(scheduler).__name__}({', '.join(settings)})"


def solver_settings(scheduler: object) -> dict[str, Setting]:
    """Return all settings of a scheduler that decide on what it does.

    Args:
        scheduler: A scheduler; its settings are `config`, empty if it has none.
    """
    config = _config(scheduler)
    unused = {
        name for switch, names in _ONLY_WITH.items() if not config.get(switch) for name in names
    }
    unused |= {
        name
        for switch, names in _ONLY_WITHOUT.items()
        if config.get(switch) not in (None, False)
        for name in names
    }
    return {
        name: _setting(value)
        for name, value in config.items()
        if not name.startswith("_") and name not in _HARMLESS and name not in unused
    }


def _config(scheduler: object) -> Mapping[str, Any]:
    config = getattr(scheduler, "config", None)
    return config if isinstance(config, Mapping) else {}


def _setting(value: object) -> Setting:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # files hold finite numbers; lambda_min_clipped is -inf
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, list | tuple):
        return type(value).__name__
    text = str(list(value))
    return text if len(text) <= _LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]
