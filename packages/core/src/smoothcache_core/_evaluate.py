"""Evaluation: every policy beside the plain run, on the same seeds."""

import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from smoothcache_core._cached import CacheStats, attach, cached
from smoothcache_core._clock import Scheduler
from smoothcache_core._cost import Cost
from smoothcache_core._errors import EvaluationError, SmoothCacheWarning
from smoothcache_core._fingerprint import Fingerprint, model_fingerprint, solver_name
from smoothcache_core._report import MetricResult, Report, ReportRow
from smoothcache_core._schedule import Schedule
from smoothcache_core._sites import Adapter
from smoothcache_core._tensors import synchronize
from smoothcache_core._wrap import denoiser
from smoothcache_core.metrics import relative_l2

PLAIN = "plain"
Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]


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
    judge = _Judge(
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
    return judge.report(fingerprint, seeds, warmup, frozenset(ours), cost, runner.device)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A way to run the denoiser. `schedule` is None for the plain run."""

    name: str
    schedule: Schedule | None


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


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One call of the sampler."""

    samples: Tensor
    seconds: float
    stats: CacheStats


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

    def run(self, policy: Policy, seed: int) -> _Run:
        """Sample once."""
        with self._applied(policy.schedule) as stats:
            synchronize(self.device)
            start = time.perf_counter()
            samples = self._sample(seed)
            self._wait(samples)
            seconds = time.perf_counter() - start
        return _Run(samples=_checked_samples(samples), seconds=seconds, stats=stats)

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
) -> dict[str, _Run]:
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


# ---------------------------------------------------------------------------- judging


@dataclass
class _Tally:
    """What is known of one policy so far."""

    seconds: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    samples: list[Tensor] = field(default_factory=list)
    stats: list[CacheStats] = field(default_factory=list)


@dataclass(kw_only=True)
class _Judge:
    """Collects runs and makes the report of them."""

    policies: Sequence[Policy]
    metrics: Mapping[str, Metric]
    summaries: Mapping[str, Summary]
    keep: float
    tallies: dict[str, _Tally] = field(default_factory=dict)
    rehearsal: Tensor | None = None
    repeat: float | None = None
    count: int = 0
    last: Tensor | None = None

    def warm(self, policy: Policy, run: _Run) -> None:
        """Take an untimed run: the plain one shows later how well the sampler repeats itself."""
        if policy.schedule is None:
            self.rehearsal = run.samples

    def take(self, runs: Mapping[str, _Run]) -> None:
        """Take the runs of one seed."""
        reference = self.last = runs[PLAIN].samples
        if self.rehearsal is not None:
            self.repeat = float(_values("rel_l2", relative_l2, self.rehearsal, reference).mean())
            self.rehearsal = None
        for name, run in runs.items():
            tally = self.tallies.setdefault(name, _Tally())
            tally.seconds.append(run.seconds)
            tally.stats.append(run.stats)
            for metric, function in self.metrics.items():
                values = _values(metric, function, reference, run.samples)
                tally.values.setdefault(metric, []).extend(values.tolist())
            if self.summaries or self.count < self.keep:
                tally.samples.append(run.samples.cpu())
        self.count += len(reference)

    def report(
        self,
        fingerprint: Fingerprint,
        seeds: tuple[int, ...],
        warmup: int,
        ours: frozenset[str],
        cost: Cost | None,
        device: torch.device,
    ) -> Report:
        """Return the report of all runs taken."""
        rows = [
            self._row(policy, fingerprint, policy.name in ours, cost) for policy in self.policies
        ]
        self._tell_noise(rows)
        schedules = [policy.schedule for policy in self.policies if policy.schedule is not None]
        assert self.last is not None
        return Report(
            rows=tuple(rows),
            seeds=seeds,
            calibration_seeds=tuple(sorted({s for each in schedules for s in each.source.seeds})),
            warmup=warmup,
            num_samples=self.count,
            sample_shape=tuple(self.last.shape[1:]),
            sample_dtype=str(self.last.dtype).removeprefix("torch."),
            plain_repeat_rel_l2=self.repeat,
            fingerprint=fingerprint,
            device=_device_name(device),
            versions={"python": platform.python_version(), **fingerprint.versions},
            date=datetime.now(UTC),
            samples=self._kept(),
        )

    def _row(
        self, policy: Policy, fingerprint: Fingerprint, ours: bool, cost: Cost | None
    ) -> ReportRow:
        tally, plain = self.tallies[policy.name], self.tallies[PLAIN]
        ratios = [a / b for a, b in zip(plain.seconds, tally.seconds, strict=True)]
        speedup = statistics.median(ratios)
        compute = _compute(policy.schedule, cost)
        metrics = {name: _result(values) for name, values in tally.values.items()}
        summaries = self._summaries(tally)
        psnr = metrics.get("psnr_db")
        return ReportRow(
            policy=policy.name,
            ours=ours,
            solver=fingerprint.solver,
            evaluations=fingerprint.evaluations,
            compute=compute,
            seconds=statistics.median(tally.seconds),
            seconds_each=tuple(tally.seconds),
            speedup=speedup,
            of_limit=None if compute is None else speedup * compute,
            rel_l2=metrics["rel_l2"].mean,
            rel_l2_spread=metrics["rel_l2"].spread,
            psnr_db=None if psnr is None else psnr.mean,
            frechet=summaries.get("frechet"),
            accuracy=summaries.get("accuracy"),
            metrics=metrics,
            summaries=summaries,
            source=None if policy.schedule is None else policy.schedule.source,
            **_counts(policy, tally.stats),
        )

    def _summaries(self, tally: _Tally) -> dict[str, float]:
        if not self.summaries:
            return {}
        samples = torch.cat(tally.samples)
        with torch.no_grad():
            return {name: float(function(samples)) for name, function in self.summaries.items()}

    def _kept(self) -> dict[str, Tensor]:
        if not self.keep:
            return {}
        limit = None if math.isinf(self.keep) else int(self.keep)
        return {name: torch.cat(tally.samples)[:limit] for name, tally in self.tallies.items()}

    def _tell_noise(self, rows: Sequence[ReportRow]) -> None:
        """Warn of policies that differ from plain hardly more than plain differs from itself."""
        if not self.repeat:
            return
        unclear = [r.policy for r in rows if r.policy != PLAIN and r.rel_l2 <= 2 * self.repeat]
        if unclear:
            warnings.warn(
                f"two plain runs of one seed differ by a relative L2 of {self.repeat:.3g}, which "
                f"hides what {unclear} did; does `sample` make all its noise from the seed?",
                SmoothCacheWarning,
                stacklevel=4,
            )


def _values(name: str, function: Metric, reference: Tensor, samples: Tensor) -> Tensor:
    """Return one value per sample, (n,) float64 on the CPU."""
    if samples.shape != reference.shape:
        raise EvaluationError(
            f"`sample` returned {tuple(samples.shape)}, but {tuple(reference.shape)} for the plain "
            "run of the same seed"
        )
    with torch.no_grad():
        values = torch.as_tensor(function(reference, samples)).detach().cpu().double()
    if values.shape != reference.shape[:1]:
        raise EvaluationError(
            f"metric {name!r} must return one value per sample, ({len(reference)},), got "
            f"{tuple(values.shape)}"
        )
    return values


def _result(values: Sequence[float]) -> MetricResult:
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values)
    return MetricResult(mean=mean, spread=_spread(values), samples=tuple(values))


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation; infinite if some values are and others are not."""
    if any(math.isnan(value) for value in values):
        return math.nan
    if len(set(values)) == 1:
        return 0.0
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.inf


def _compute(schedule: Schedule | None, cost: Cost | None) -> float | None:
    if schedule is None:
        return 1.0
    known = cost or schedule.cost
    return schedule.compute_fraction(known) if known is not None and known.total else None


def _counts(policy: Policy, stats: Sequence[CacheStats]) -> dict[str, int]:
    if policy.schedule is None:
        return {}
    return {
        "bytes_peak": max(each.bytes_peak for each in stats),
        "computed": sum(sum(each.computed.values()) for each in stats),
        "reused": sum(sum(each.reused.values()) for each in stats),
        "recomputed": sum(each.recomputed for each in stats),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"
