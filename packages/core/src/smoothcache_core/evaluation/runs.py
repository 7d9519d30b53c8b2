"""One run of a policy, and the judge of such runs.

`evaluate` makes all runs and judges them in one call. Where runs are made one by one, by several
processes say, and kept in files, the same two halves serve.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.evaluation.decoded import Decode, RecentlyDecoded
from smoothcache_core.evaluation.tally import Judge, Metric, Policy, Run, Summary
from smoothcache_core.outputs.structures import denoised
from smoothcache_core.outputs.tensors import synchronize
from smoothcache_core.runtime.adapting import adapter_by
from smoothcache_core.runtime.cached import cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule

# ---------------------------------------------------------------------------- running


def run_of(sampler: Sampler, policy: Policy, seed: int) -> Run:
    """Sample once by a policy and time it; putting the cache on is not timed.

    The latents are copied, because compiled samplers write the next ones to the same memory.

    Args:
        sampler: How a run is made, unless the policy has a sampler of its own.
        policy: What is skipped.
        seed: Seed of the run.

    Raises:
        SmoothCacheError: See `cached` and `Sampler.final_latent`.
    """
    used = policy.sampler or sampler
    device = device_of(used.model)
    with _applied(used, policy.schedule) as stats:
        synchronize(device)
        start = time.perf_counter()
        latents = used.final_latent(seed)
        _wait(device, latents)
        seconds = time.perf_counter() - start
    return Run(latents=latents.detach().clone(), seconds=seconds, stats=stats)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU if it has none.

    Args:
        model: A denoiser, or any other module.
    """
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _applied(sampler: Sampler, schedule: Schedule | None) -> AbstractContextManager[CacheStats]:
    if schedule is None:
        return nullcontext(CacheStats())
    return cached(
        sampler.model,
        sampler.adapter,
        schedule,
        branches=sampler.branches,
        scheduler=sampler.scheduler,
        solver=sampler.solver,
    )


def _wait(device: torch.device, latents: Tensor) -> None:
    """Wait for the model's device, and for that of the latents: an offloaded model has two."""
    synchronize(device)
    if latents.device != device:
        synchronize(latents.device)


# ---------------------------------------------------------------------------- judging


def judge_of(
    sampler: Sampler,
    policies: Sequence[Policy],
    *,
    metrics: Mapping[str, Metric],
    summaries: Mapping[str, Summary],
    keep: int | bool,
) -> Judge:
    """Return the judge of runs of a sampler.

    Args:
        sampler: Decodes what the runs end with.
        policies: All policies, the plain one among them.
        metrics: Compare decoded samples with plain ones, by name; see `evaluate`.
        summaries: Say something of all samples of a policy, by name; see `evaluate`.
        keep: Samples of every policy to keep, at least 0; True for all.
    """
    known = [each.schedule.fingerprint for each in policies if each.schedule is not None]
    return Judge(
        policies=policies,
        metrics=metrics,
        summaries=summaries,
        keep=math.inf if keep is True else keep,
        decode=_decoded(sampler),
        view=partial(_denoised, sampler, known),
    )


def ran(sampler: Sampler, policies: Iterable[Policy]) -> Fingerprint:
    """Return what was run.

    Args:
        sampler: How the plain run is made.
        policies: Those that are compared, the plain one among them.
    """
    schedules = (each.schedule for each in policies if each.schedule is not None)
    first = next(schedules, None)
    adapter = sampler.adapter if first is None else adapter_by(sampler.adapter, first)
    return model_fingerprint(denoiser(sampler.model), adapter.name).changed(
        solver=sampler.solver_name,
        branches=sampler.branches,
        evaluations=None if first is None else first.evaluations,
    )


def _decoded(sampler: Sampler) -> Decode:
    """Return what makes samples of final latents, (n, ...) of however many runs."""
    if sampler.decode is None:
        return lambda latents: latents
    return RecentlyDecoded(sampler.decode, batch=sampler.samples)


def _denoised(sampler: Sampler, known: Sequence[Fingerprint], latents: Tensor) -> Tensor:
    """Return what is denoised of final latents, (n, ...), where they hold a condition as well."""
    parts = (sampler.part, *(each.latent_part for each in known))
    part = next((each for each in parts if each is not None), None)
    shapes = [each.latent_shape for each in known if each.latent_shape]
    if part is None or tuple(latents.shape[1:]) not in shapes:
        return latents
    return denoised(latents, part)
