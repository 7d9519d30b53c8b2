"""diffusers' own caches: their configurations, by intervals, by rows and by thresholds.

Those that decide by looking at the data get a threshold that makes them skip where a row says, for
benchmarks of speed: random weights give them nothing sensible to look at. What deciding costs them
is still paid.
"""

import ast
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from smoothcache_core import Schedule

from tools.bench.baselines.hosts import Before, Call, Config, Host
from tools.bench.baselines.peers import ALWAYS, NEVER, hooks_of
from tools.bench.policies import Attach, RowOf

_NEVER_AGAIN = 10**9  # evaluations: longer than any run


# ---------------------------------------------------------------------------- fixed intervals


def pyramid(call: Call) -> PyramidAttentionBroadcastConfig:
    """Return pyramid attention broadcast on every second evaluation."""
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=call.timestep,  # pyright: ignore[reportArgumentType]
    )


def taylorseer_every(*, interval: int = 2, **given: Any) -> Config:
    """Return TaylorSeer of order 1 at a fixed interval."""
    return lambda call: TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=1,
        max_order=1,
        taylor_factors_dtype=call.dtype,
        **given,
    )


def mag_every(*, skips: int = 1) -> Config:
    """Return MagCache that skips `skips` evaluations after each that it computes."""
    return lambda call: MagCacheConfig(
        mag_ratios=[1.0] * call.steps,
        max_skip_steps=skips,
        retention_ratio=0.0,
        num_inference_steps=call.steps,
    )


def first_block_by(host: Host, row: RowOf) -> Attach:
    """Return first-block cache whose threshold is set so that it skips where a row says."""
    rows: dict[int, tuple[int, ...]] = {}

    def config(call: Call) -> FirstBlockCacheConfig:
        rows[0] = row(call.steps)
        return FirstBlockCacheConfig(threshold=NEVER)

    def before(part: Any, evaluation: int) -> None:
        head, *_ = hooks_of(getattr(part, host.blocks)[0])
        head.threshold = NEVER if rows[0][evaluation] else ALWAYS

    return host.diffusers(config, before=before)


# ---------------------------------------------------------------------------- by schedules


def taylorseer(host: Host, schedule: Schedule, order: int) -> Attach:
    """Return diffusers' TaylorSeer on the sites of a schedule that has one row for all of them.

    Its configuration knows whole intervals only, so the hooks are told before every evaluation
    whether to compute.
    """
    (row,) = set(schedule.rows.values())
    pattern = host.pattern or rf"{host.blocks}\.\d+\.({'|'.join(schedule.rows)})"
    config = TaylorSeerCacheConfig(
        cache_interval=_NEVER_AGAIN,
        max_order=order,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=[pattern],
    )
    return host.diffusers(lambda call: config, before=_computing(row))


def _computing(row: Sequence[int]) -> Before:
    def before(part: Any, evaluation: int) -> None:
        for module in part.modules():
            for hook in hooks_of(module):
                hook.disable_cache_before_step = _NEVER_AGAIN if row[evaluation] else -1

    return before


# ---------------------------------------------------------------------------- by thresholds


def first_block_cache(host: Host, threshold: float) -> Attach:
    """Return diffusers' FirstBlockCache."""
    return host.diffusers(lambda call: FirstBlockCacheConfig(threshold=threshold))


def mag_cache(
    host: Host,
    ratios: Sequence[float],
    threshold: float,
    *,
    max_skip_steps: int,
    retention_ratio: float,
) -> Attach:
    """Return diffusers' MagCache.

    Args:
        host: Where it goes.
        ratios: What it measured in its calibration mode, one for each evaluation.
        threshold: Accumulated error up to which it skips.
        max_skip_steps: Most evaluations skipped one after the other.
        retention_ratio: Share of the first evaluations that are always computed, in [0, 1).
    """
    return host.diffusers(
        lambda call: MagCacheConfig(
            threshold=threshold,
            max_skip_steps=max_skip_steps,
            retention_ratio=retention_ratio,
            num_inference_steps=call.steps,
            mag_ratios=list(ratios),
        )
    )


def mag_ratios(host: Host, run: Callable[[Attach], object]) -> list[float]:
    """Return the ratios that MagCache measures and logs in its calibration mode.

    Args:
        host: Where it goes.
        run: Samples once under a policy.
    """
    calibrating = host.diffusers(
        lambda call: MagCacheConfig(calibrate=True, num_inference_steps=call.steps)
    )
    with _logged("diffusers.hooks.mag_cache") as lines:
        run(calibrating)
    (line,) = (line for line in lines if "Results: [" in line)
    return ast.literal_eval(line.split("Results: ")[1])


@contextmanager
def _logged(name: str) -> Generator[list[str]]:
    """Note what a logger is told, down to remarks; samplers may hold back what is printed."""
    logger, lines = logging.getLogger(name), []
    level, propagate = logger.level, logger.propagate
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
