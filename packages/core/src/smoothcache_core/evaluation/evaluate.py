"""Evaluation: every policy beside the plain run, on the same seeds."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.fingerprints import model_fingerprint, solver_name
from smoothcache_core.errors import EvaluationError
from smoothcache_core.evaluation.tally import Judge, Metric, Policy, Run, Summary
from smoothcache_core.metrics import relative_l2
from smoothcache_core.outputs.tensors import synchronize
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import PLAIN
from smoothcache_core.runtime.cached import attach, cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule


def evaluate(
    model: nn.Module,
    adapter: Adapter,
    sample: Callable[[int], Tensor],
    schedules: Mapping[str, Schedule],
    *,
    seeds: Sequence[int],
    metrics: Mapping[str, Metric] | None = None,
    summaries: Mapping[str, Summary] | None = None,
    ours: Collection[str] = (),
    cost: Cost | None = None,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
    warmup: int = 1,
    progress: bool = True,
    keep_samples: int | bool = False,
    calibration_samples: int | None = None,
) -> Report:
    """Compare schedules with the plain run: time, compute, and what becomes of the samples.

    Every seed is sampled once by every policy, one after the other, in an order that rotates from
    seed to seed, so that what disturbs the machine disturbs all alike. The plain sample of a seed
    is the reference of that seed. Putting a cache on and measuring samples are not timed.

    Example:
        >>> report = evaluate(model, adapter, sample, {"smooth": schedule}, seeds=range(100, 108))
        >>> report.write("evaluation", schedules={"smooth": schedule})

    Args:
        model: The denoiser. Compile it before, not inside.
        adapter: Where its sites are.
        sample: Runs the sampler once from the noise of the given seed; returns the final samples,
            (n, ...).
        schedules: What to compare, by name.
        seeds: Runs to make, distinct, and none of them a seed the schedules were calibrated with.
        metrics: Functions of the reference and a policy's samples, (n, ...) each, that return one
            value per sample, (n,). Relative L2 is measured in any case, as `"rel_l2"`.
        summaries: Functions of all samples of a policy on the CPU, in the order of the seeds.
        ours: Names of the policies that are this library's own methods, not published ones.
        cost: MACs per site; those of each schedule if not given.
        branches: See `cached`.
        scheduler: See `cached`.
        solver: See `cached`.
        warmup: Untimed runs of every policy, on the first seed, before the timed ones; at least 0.
        progress: Show a progress bar.
        keep_samples: How many samples of every policy `Report.samples` shall hold; True for all.
        calibration_samples: How many samples the schedules were calibrated with, to be written
            down.

    Returns:
        The report. The model is as it was before.

    Raises:
        EvaluationError: The seeds, names or numbers are wrong, or `sample` or a metric returns
            something else than it should.
        AdapterError: See `cached`; raised before anything is sampled.
        AttachError: See `cached`; raised before anything is sampled.
        ScheduleError: See `cached`; raised before anything is sampled where that can be known.
    """
    seeds = tuple(seeds)
    _check_settings(schedules, seeds, ours, warmup, keep_samples)
    runner = _Runner(model, adapter, sample, tuple(branches), scheduler, solver)
    for schedule in schedules.values():
        runner.check(schedule)
    policies = [Policy(name=PLAIN, schedule=None)]
    policies += [Policy(name=name, schedule=schedule) for name, schedule in schedules.items()]
    judge = Judge(
        policies=policies,
        metrics={"rel_l2": relative_l2, **(metrics or {})},
        summaries=summaries or {},
        keep=math.inf if keep_samples is True else keep_samples,
    )
    with tqdm(
        total=(warmup + len(seeds)) * len(policies),
        desc="evaluating",
        unit="run",
        disable=not progress,
    ) as bar:
        for policy in policies * warmup:
            judge.warm(policy, runner.run(policy, seeds[0]))
            bar.update()
        for index, seed in enumerate(seeds):
            judge.take(_runs(runner, policies, index, seed, bar))
    fingerprint = runner.fingerprint(schedules)
    return judge.report(
        fingerprint, seeds, warmup, frozenset(ours), cost, runner.device, calibration_samples
    )


def _check_settings(
    schedules: Mapping[str, Schedule],
    seeds: Sequence[int],
    ours: Collection[str],
    warmup: int,
    keep_samples: int,
) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise EvaluationError(f"evaluation needs distinct seeds, got {list(seeds)}")
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
                f"seeds {shared} calibrated {name!r}, so they cannot judge it; take others, for "
                f"example from {max(schedule.source.seeds) + 1} on"
            )


# ---------------------------------------------------------------------------- running


class _Runner:
    """Runs the sampler by a policy, and times it."""

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        sample: Callable[[int], Tensor],
        branches: tuple[str, ...],
        scheduler: Scheduler | None,
        solver: str | None,
    ) -> None:
        self._model = model
        self._adapter = adapter
        self._sample = sample
        self._branches = branches
        self._scheduler = scheduler
        self._solver = solver or (solver_name(scheduler) if scheduler is not None else None)
        tensors = chain(model.parameters(), model.buffers())
        self.device = next((tensor.device for tensor in tensors), torch.device("cpu"))

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that does not fit, as `cached` would."""
        attach(
            self._model,
            self._adapter,
            schedule,
            branches=self._branches,
            scheduler=self._scheduler,
            solver=self._solver,
        ).detach(quietly=True)

    def run(self, policy: Policy, seed: int) -> Run:
        """Sample once."""
        with self._applied(policy.schedule) as stats:
            synchronize(self.device)
            start = time.perf_counter()
            samples = self._sample(seed)
            self._wait(samples)
            seconds = time.perf_counter() - start
        return Run(samples=_checked_samples(samples), seconds=seconds, stats=stats)

    def _applied(self, schedule: Schedule | None) -> AbstractContextManager[CacheStats]:
        if schedule is None:
            return nullcontext(CacheStats())
        return cached(
            self._model,
            self._adapter,
            schedule,
            branches=self._branches,
            scheduler=self._scheduler,
            solver=self._solver,
        )

    def _wait(self, samples: object) -> None:
        """Wait for the model's device, and for that of the samples: an offloaded model has two."""
        synchronize(self.device)
        if isinstance(samples, Tensor) and samples.device != self.device:
            synchronize(samples.device)

    def fingerprint(self, schedules: Mapping[str, Schedule]) -> Fingerprint:
        """Return what was run."""
        known = model_fingerprint(denoiser(self._model), self._adapter.name)
        evaluations = next(iter(schedules.values())).evaluations
        return known.model_copy(
            update={
                "solver": self._solver,
                "branches": self._branches,
                "evaluations": evaluations,
            }
        )


def _runs(
    runner: _Runner, policies: Sequence[Policy], index: int, seed: int, bar: "tqdm[Any]"
) -> dict[str, Run]:
    """Sample one seed by every policy, starting with another one for every seed."""
    first = index % len(policies)
    runs = {}
    for policy in (*policies[first:], *policies[:first]):
        runs[policy.name] = runner.run(policy, seed)
        bar.update()
    return runs


def _checked_samples(samples: object) -> Tensor:
    """Return a copy, because compiled samplers write the next samples to the same memory."""
    if not isinstance(samples, Tensor) or not samples.ndim or not len(samples):
        shape = f" of shape {tuple(samples.shape)}" if isinstance(samples, Tensor) else ""
        raise EvaluationError(
            f"`sample` must return a tensor (n, ...) of final samples, got {type(samples).__name__}"
            f"{shape}"
        )
    return samples.detach().clone()
