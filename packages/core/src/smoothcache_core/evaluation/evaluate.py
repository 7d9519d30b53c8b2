"""Evaluation: every policy beside the plain run, on the same seeds."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.arguments import check_kind, described
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.errors import EvaluationError
from smoothcache_core.evaluation.decoded import Decode, RecentlyDecoded
from smoothcache_core.evaluation.tally import Judge, Metric, Policy, Run, Summary
from smoothcache_core.outputs.structures import denoised
from smoothcache_core.outputs.tensors import synchronize
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import PLAIN
from smoothcache_core.runtime.adapting import adapter_by
from smoothcache_core.runtime.cached import attach, cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.seeding import checked_seeds
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule


def evaluate(
    sampler: Sampler,
    schedules: Mapping[str, Schedule],
    *,
    seeds: Sequence[int],
    metrics: Mapping[str, Metric] | None = None,
    summaries: Mapping[str, Summary] | None = None,
    ours: Collection[str] = (),
    cost: Cost | None = None,
    warmup: int = 1,
    progress: bool = True,
    keep_samples: int | bool = False,
    calibration_samples: int | None = None,
) -> Report:
    """Compare schedules with the plain run: time, compute, and what becomes of the samples.

    Every seed is sampled once by every policy, one after the other, in an order that rotates from
    seed to seed, so that what disturbs the machine disturbs all alike. The plain sample of a seed
    is the reference of that seed. Putting a cache on, decoding and measuring are not timed.

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=range(100, 104), progress=False)
        >>> [row.policy for row in report.rows]
        ['plain', 'half']
        >>> report.row("half").rel_l2 < 1.0
        True

    Args:
        sampler: How a run is made. Its model may be compiled, but not inside a run. It must return
            the final latent.
        schedules: What to compare, by name, in the order of the rows; `"plain"` is taken.
        seeds: Runs to make, distinct, and none of them a seed the schedules were calibrated with.
        metrics: Functions of the reference and a policy's samples, (samples, ...) each and decoded
            if the sampler decodes, that return one value per sample, (samples,). Relative L2 is
            that of the final latents, and measured in any case, as `"rel_l2"`.
        summaries: Functions of all samples of a policy, decoded if the sampler decodes, on the CPU
            and in the order of the seeds.
        ours: Names of the policies that are this library's own methods, not published ones.
        cost: MACs per site to count compute with; those of each schedule if not given.
        warmup: Untimed runs of every policy, on the first seed, before the timed ones; at least 0.
        progress: Show a progress bar.
        keep_samples: Number of samples of each policy to store in `Report.samples`, decoded if the
            sampler decodes; True for all, False for none.
        calibration_samples: Number of samples that the schedules were calibrated with, which the
            report records.

    Returns:
        The report, the plain run first. The model is as it was before.

    Raises:
        EvaluationError: The seeds, names or numbers are wrong, or a metric returns something else
            than it should.
        SamplerError: `run` does not return the final latent.
        AdapterError: See `cached`; raised before anything is sampled.
        AttachError: See `cached`; raised before anything is sampled.
        ScheduleError: See `cached`; raised before anything is sampled where that can be known.
    """
    check_kind(sampler, Sampler, name="sampler", error=EvaluationError)
    if not isinstance(schedules, Mapping):
        raise EvaluationError(
            f"`schedules` must be schedules by name, such as {{'half': schedule}}, not "
            f"{described(schedules)}"
        )
    for name, schedule in schedules.items():
        check_kind(schedule, Schedule, name=f"schedules[{name!r}]", error=EvaluationError)
    seeds = tuple(checked_seeds(seeds, "evaluation", EvaluationError))
    _check_settings(schedules, seeds, ours, warmup, keep_samples)
    policies = [Policy(name=PLAIN, schedule=None)]
    policies += [Policy(name=name, schedule=schedule) for name, schedule in schedules.items()]
    judge = Judge(
        policies=policies,
        metrics=metrics or {},
        summaries=summaries or {},
        keep=math.inf if keep_samples is True else keep_samples,
        decode=_decoded(sampler),
        view=partial(_denoised, sampler, schedules),
    )
    device = _device_of(sampler.model)
    with (
        sampler.around(),
        tqdm(
            total=(warmup + len(seeds)) * len(policies),
            desc="evaluating",
            unit="run",
            disable=not progress,
        ) as bar,
    ):
        for schedule in schedules.values():
            _check_fits(sampler, schedule)
        for policy in policies * warmup:
            judge.warm(policy, _run(sampler, policy, seeds[0], device))
            bar.update()
        for index, seed in enumerate(seeds):
            judge.take(_runs(sampler, policies, index, seed, device, bar))
        return judge.report(
            _fingerprint(sampler, schedules),
            seeds,
            warmup,
            frozenset(ours),
            cost,
            device,
            calibration_samples,
        )


def _check_settings(
    schedules: Mapping[str, Schedule],
    seeds: Sequence[int],
    ours: Collection[str],
    warmup: int,
    keep_samples: int,
) -> None:
    if warmup < 0 or keep_samples < 0:
        raise EvaluationError(
            f"warmup and keep_samples must be at least 0, got {warmup} and {int(keep_samples)}"
        )
    if not schedules or PLAIN in schedules:
        raise EvaluationError(
            f"evaluation needs schedules with names other than {PLAIN!r}, got {list(schedules)}"
        )
    unknown = sorted(set(ours) - set(schedules))
    if unknown:
        raise EvaluationError(f"ours names {unknown}, but the schedules are {list(schedules)}")
    evaluations = {name: schedule.evaluations for name, schedule in schedules.items()}
    if len(set(evaluations.values())) > 1:
        raise EvaluationError(f"the schedules differ in their evaluations: {evaluations}")
    _check_disjoint(schedules, seeds)


def _check_disjoint(schedules: Mapping[str, Schedule], seeds: Sequence[int]) -> None:
    for name, schedule in schedules.items():
        shared = sorted(set(seeds) & set(schedule.source.seeds))
        if shared:
            raise EvaluationError(
                f"seeds {shared} were used to calibrate or fit {name!r}, so they cannot evaluate "
                f"it; use others, for example from {max(schedule.source.seeds) + 1} on"
            )


# ---------------------------------------------------------------------------- running


def _device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU if it has none."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _check_fits(sampler: Sampler, schedule: Schedule) -> None:
    """Refuse a schedule that does not fit, as `cached` would."""
    attach(
        sampler.model,
        sampler.adapter,
        schedule,
        branches=sampler.branches,
        scheduler=sampler.scheduler,
        solver=sampler.solver,
    ).detach(quietly=True)


def _runs(
    sampler: Sampler,
    policies: Sequence[Policy],
    index: int,
    seed: int,
    device: torch.device,
    bar: "tqdm[Any]",
) -> dict[str, Run]:
    """Sample one seed by every policy, starting with another one for every seed."""
    first = index % len(policies)
    runs = {}
    for policy in (*policies[first:], *policies[:first]):
        runs[policy.name] = _run(sampler, policy, seed, device)
        bar.update()
    return runs


def _run(sampler: Sampler, policy: Policy, seed: int, device: torch.device) -> Run:
    """Sample once and time it.

    The latents are copied, because compiled samplers write the next ones to the same memory.
    """
    with _applied(sampler, policy.schedule) as stats:
        synchronize(device)
        start = time.perf_counter()
        latents = sampler.final_latent(seed)
        _wait(device, latents)
        seconds = time.perf_counter() - start
    return Run(latents=latents.detach().clone(), seconds=seconds, stats=stats)


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


def _decoded(sampler: Sampler) -> Decode:
    """Return what makes samples of final latents, (n, ...) of however many runs."""
    if sampler.decode is None:
        return lambda latents: latents
    return RecentlyDecoded(sampler.decode, batch=sampler.samples)


def _denoised(sampler: Sampler, schedules: Mapping[str, Schedule], latents: Tensor) -> Tensor:
    """Return what is denoised of final latents, (n, ...), where they hold a condition as well."""
    known = [each.fingerprint for each in schedules.values()]
    parts = (sampler.part, *(each.latent_part for each in known))
    part = next((each for each in parts if each is not None), None)
    shapes = [each.latent_shape for each in known if each.latent_shape]
    if part is None or tuple(latents.shape[1:]) not in shapes:
        return latents
    return denoised(latents, part)


def _fingerprint(sampler: Sampler, schedules: Mapping[str, Schedule]) -> Fingerprint:
    """Return what was run."""
    first = next(iter(schedules.values()))
    adapter = adapter_by(sampler.adapter, first)
    return model_fingerprint(denoiser(sampler.model), adapter.name).changed(
        solver=sampler.solver_name, branches=sampler.branches, evaluations=first.evaluations
    )
