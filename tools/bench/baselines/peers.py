"""Other people's caches, put on a denoiser and taken off again.

A peer is imported when it is put on. Each context manager gives an `Around`: what has to be in
force during an evaluation, by its index. Entering evaluation 0 begins a new run.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from diffusers.hooks.hooks import HookRegistry
from diffusers.models.cache_utils import CacheMixin
from torch import nn

from tools.bench.policies import Around

ALWAYS, NEVER = 1e9, -1.0
"""Thresholds that make a cache deciding by a relative difference skip, or compute."""
ALMOST_ALWAYS = 0.999
"""From 1.0 on cache-dit does not look at the difference at all."""


@contextmanager
def quiet() -> Generator[None]:
    """Drop what peers print and torch's warnings of what they call."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        yield


@contextmanager
def dit_smoothcache(
    model: nn.Module, schedule: Mapping[str, Sequence[int]], *, block: type[nn.Module]
) -> Generator[Around]:
    """Put the package of the paper on; its own helper for diffusers wraps `attn1` only.

    Args:
        model: The model.
        schedule: For each component, such as `attn1`, one entry per evaluation: 1 compute, 0 reuse.
        block: Class of the blocks that have these components.
    """
    package: Any = import_module("SmoothCache")  # not installed everywhere
    helper = package.SmoothCacheHelper(
        model=model,
        block_classes=block,
        components_to_wrap=list(schedule),
        schedule={component: list(row) for component, row in schedule.items()},
    )
    helper.enable()

    @contextmanager
    def around(evaluation: int) -> Generator[None]:
        if evaluation == 0:
            helper.reset_state()
        yield

    try:
        yield around
    finally:
        helper.disable()


@contextmanager
def diffusers_cache(
    model: nn.Module,
    config: object,
    *,
    sigmas: Sequence[float],
    before: Callable[[int], None] = lambda evaluation: None,
) -> Generator[Around]:
    """Put one of diffusers' own caches on.

    For models that are not among those that offer them, `CacheMixin` is added to the class of this
    instance; the hooks themselves are diffusers' own.

    Args:
        model: The model, or the part of it that holds the list of blocks.
        config: The configuration of the cache.
        sigmas: Noise level of each evaluation, of a scale in [0, 1].
        before: Called with the evaluation before it.

    Raises:
        ValueError: The configuration matches no module.
    """
    own = type(model)
    model.__class__ = type(f"{own.__name__}WithCaches", (own, CacheMixin), {})
    cacheable: Any = model

    @contextmanager
    def around(evaluation: int) -> Generator[None]:
        if evaluation == 0:
            HookRegistry.check_if_exists_or_initialize(model).reset_stateful_hooks()
        before(evaluation)
        with cacheable.cache_context(
            "cfg",
            step_index=evaluation,
            num_inference_steps=len(sigmas),
            sigma=sigmas[evaluation],
        ):
            yield

    try:
        cacheable.enable_cache(config)
        if not any(hooks_of(module) for module in model.modules()):
            raise ValueError(f"its configuration matches no module of {own.__name__}")
        yield around
    finally:
        if cacheable.is_cache_enabled:
            cacheable.disable_cache()
        model.__class__ = own


def hooks_of(module: nn.Module) -> list[Any]:
    """Return diffusers' hooks on a module."""
    registry = getattr(module, "_diffusers_hook", None)
    return list(registry.hooks.values()) if registry is not None else []


@contextmanager
def cache_dit(
    model: nn.Module,
    config: Mapping[str, Any],
    *,
    taylor_order: int | None = None,
    blocks: nn.ModuleList | None = None,
) -> Generator[Around]:
    """Put cache-dit's DBCache on.

    Args:
        model: The model, or the part of it that holds the list of blocks.
        config: Fields of its `DBCacheConfig`.
        taylor_order: Also extrapolate by its TaylorSeer calibrator, of this order.
        blocks: The blocks, one tensor in and one out, if cache-dit does not know the model.
    """
    package: Any = import_module("cache_dit")  # not installed everywhere
    for handler in logging.getLogger("CACHE_DIT").handlers:
        handler.setLevel(logging.ERROR)
    settings: dict[str, Any] = {
        "cache_config": package.DBCacheConfig(enable_separate_cfg=False, **config)
    }
    if taylor_order is not None:
        settings["calibrator_config"] = package.TaylorSeerCalibratorConfig(
            taylorseer_order=taylor_order
        )
    target: Any = model
    if blocks is not None:
        pattern = package.ForwardPattern.Pattern_3
        target = package.BlockAdapter(transformer=model, blocks=blocks, forward_pattern=pattern)
    package.enable_cache(target, **settings)

    @contextmanager
    def around(evaluation: int) -> Generator[None]:
        if evaluation == 0:
            package.refresh_context(model, **settings)
        yield

    try:
        yield around
    finally:
        package.disable_cache(target)
