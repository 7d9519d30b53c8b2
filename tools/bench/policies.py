"""How policies of the quality benchmark are put on a sampler: this library's, peers', fewer steps.

Whatever is put on stays on the copy of the denoiser that the sampler owns, for one run.
"""

import ast
import itertools
import logging
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from smoothcache_core import Adapter, Calibration, Schedule, SmoothCacheWarning, cached
from smoothcache_core.cli.sampler import Sampler
from smoothcache_core.schedule import Provenance
from torch import nn

from tools.bench.baselines import peers
from tools.bench.baselines.hosts import Host
from tools.bench.baselines.peers import Around, diffusers_cache, hooks_of, quiet
from tools.bench.bench import Bench, Put, Working
from tools.bench.models.model import WithSteps
from tools.bench.studies.tuning import OutOfReachError

_NEVER_AGAIN = 10**9


# ---------------------------------------------------------------------------- without a cache


def fewer_steps(make: WithSteps, steps: int) -> Put:
    """Return a solver that takes `steps` steps from the same noise."""

    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        yield Working(sampler=make(sampler, steps))

    return put


# ---------------------------------------------------------------------------- by schedules


def scheduled(schedule: Schedule, *, adapter: Adapter | None = None) -> Put:
    """Return this library's cache by a schedule.

    Args:
        schedule: The schedule.
        adapter: Where the sites are, if not where the sampler says.
    """

    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SmoothCacheWarning)  # the batch and noise are others
            with (
                sampler.around(),
                cached(
                    sampler.denoiser,
                    adapter or sampler.adapter,
                    schedule,
                    branches=sampler.branches,
                    scheduler=sampler.scheduler,
                    solver=sampler.solver_name,
                ) as stats,
            ):
                yield Working(sampler=sampler, stats=stats)

    return put


def dit_smoothcache(host: Host, schedule: Schedule) -> Put:
    """Return the package of the paper, by the rows of a schedule that has one per kind."""

    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        model, rows = sampler.denoiser, schedule.exported("smoothcache-v1")
        with (
            quiet(),
            peers.dit_smoothcache(model, rows, block=host.block) as around,
            _driven(model, around),
        ):
            yield Working(sampler=sampler)

    return put


def evenly_spaced(calibration: Calibration, budget: float) -> Schedule:
    """Return the schedule of evenly spaced computed evaluations nearest to `budget` from below.

    FORA (arXiv 2407.01425) computes every n-th evaluation; the same for a distance that is no
    whole number. The first and the last evaluation are computed.

    Raises:
        OutOfReachError: Not even one evaluation fits into the budget.
    """
    evaluations = calibration.evaluations
    each = calibration.cost.fraction() / evaluations
    outside = 1.0 - calibration.cost.fraction()
    computed = int((budget - outside) / each + 1e-9)
    if computed < 1:
        raise OutOfReachError(f"computing once costs {outside + each:.3f} of the MACs already")
    places = set(np.linspace(0, evaluations - 1, computed).round().astype(int).tolist())
    row = tuple(int(i in places) for i in range(evaluations))
    return Schedule(
        evaluations=evaluations,
        rows=dict.fromkeys(calibration.kinds, row),
        source=Provenance(
            name="interval", settings={"computed": computed}, seeds=calibration.seeds
        ),
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )


# ---------------------------------------------------------------------------- diffusers


def taylorseer(host: Host, schedule: Schedule, order: int) -> Put:
    """Return diffusers' TaylorSeer on the sites of a schedule that has one row for all of them.

    Its configuration knows whole intervals only, so the hooks are told before every evaluation
    whether to compute.
    """
    (row,) = set(schedule.rows.values())
    kinds = "|".join(schedule.rows)

    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        config = TaylorSeerCacheConfig(
            cache_interval=_NEVER_AGAIN,
            max_order=order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=[rf"{host.blocks}\.\d+\.({kinds})"],
        )

        def before(evaluation: int) -> None:
            for module in sampler.denoiser.modules():
                for hook in hooks_of(module):
                    hook.disable_cache_before_step = _NEVER_AGAIN if row[evaluation] else -1

        with _diffusers(host, sampler, config, before):
            yield Working(sampler=sampler)

    return put


def first_block_cache(host: Host, threshold: float) -> Put:
    """Return diffusers' FirstBlockCache."""
    return _of_diffusers(host, lambda steps: FirstBlockCacheConfig(threshold=threshold))


def mag_cache(
    host: Host,
    ratios: Sequence[float],
    threshold: float,
    *,
    max_skip_steps: int,
    retention_ratio: float,
) -> Put:
    """Return diffusers' MagCache."""
    return _of_diffusers(
        host,
        lambda steps: MagCacheConfig(
            threshold=threshold,
            max_skip_steps=max_skip_steps,
            retention_ratio=retention_ratio,
            num_inference_steps=steps,
            mag_ratios=list(ratios),
        ),
    )


def mag_ratios(bench: Bench, *, samples: int, seed: int) -> list[float]:
    """Return the ratios that MagCache measures and logs in its calibration mode."""
    put = _of_diffusers(
        bench.modality.host,
        lambda steps: MagCacheConfig(calibrate=True, num_inference_steps=steps),
    )
    with quiet(), _logged("diffusers.hooks.mag_cache") as lines:
        bench.run(put, samples=samples, seed=seed)
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
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate


def _of_diffusers(host: Host, config: Callable[[int], object]) -> Put:
    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        with _diffusers(host, sampler, config(sampler.steps)):
            yield Working(sampler=sampler)

    return put


@contextmanager
def _diffusers(
    host: Host,
    sampler: Sampler,
    config: object,
    before: Callable[[int], None] = lambda evaluation: None,
) -> Generator[None]:
    """Put a cache on that does not ask for noise levels."""
    model, ramp = sampler.denoiser, np.linspace(1.0, 0.0, sampler.steps, endpoint=False)
    part = host.part(model)
    with (
        diffusers_cache(part, config, sigmas=ramp.tolist(), before=before) as around,
        _driven(model, around),
    ):
        yield


# ---------------------------------------------------------------------------- cache-dit


def cache_dit(
    host: Host, threshold: float, *, taylor_order: int | None, config: Mapping[str, Any]
) -> Put:
    """Return cache-dit's DBCache.

    Args:
        host: Where the blocks are.
        threshold: Its `residual_diff_threshold`, below 1.
        taylor_order: Also extrapolate, see `peers.cache_dit`.
        config: Further fields of its configuration.
    """

    @contextmanager
    def put(sampler: Sampler) -> Generator[Working]:
        model = sampler.denoiser
        given = {
            "residual_diff_threshold": threshold,
            "num_inference_steps": sampler.steps,
            **config,
        }
        with (
            quiet(),
            peers.cache_dit(
                host.part(model), given, taylor_order=taylor_order, blocks=host.listed(model)
            ) as around,
            _driven(model, around),
        ):
            yield Working(sampler=sampler)

    return put


@contextmanager
def _driven(model: nn.Module, around: Around) -> Generator[None]:
    """Put `around` into force during every call of the denoiser."""
    before = model.__dict__.get("forward")
    forward, count = model.forward, itertools.count()

    def driven(*args: Any, **kwargs: Any) -> Any:
        with around(next(count)):
            return forward(*args, **kwargs)

    model.__dict__["forward"] = driven
    yield
    if before is None:
        del model.__dict__["forward"]
    else:
        model.__dict__["forward"] = before
