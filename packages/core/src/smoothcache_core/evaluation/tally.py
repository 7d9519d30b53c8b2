"""Judging: what the runs of every policy cost, and what they did to the samples."""

import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import torch
from torch import Tensor

from smoothcache_core.errors import EvaluationError, warn
from smoothcache_core.evaluation.exact import ExactFinal
from smoothcache_core.metrics import relative_l2
from smoothcache_core.numerics.bootstrap import interval_of_mean
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import EXACT_REL_L2, PLAIN, MetricResult, ReportRow
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

Metric = Callable[[Tensor, Tensor], Tensor]


Summary = Callable[[Tensor], float]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A way to run the denoiser.

    Attributes:
        name: Its name, which no other policy has.
        schedule: What it computes and fills; None computes everything.
        sampler: What makes its runs, where that is not the sampler that all are judged by: one of
            fewer steps. Its final latents are compared with the plain ones from the same seed.
        source: How it was made; that of the schedule if not given.
        compute: MACs over those of the plain run, where no schedule says so.
        evaluations: Evaluations of one run, where they are not those of the plain run.
    """

    name: str
    schedule: Schedule | None = None
    sampler: Sampler | None = None
    source: Provenance | None = None
    compute: float | None = None
    evaluations: int | None = None

    @property
    def provenance(self) -> Provenance | None:
        """How it was made; None for the plain run."""
        if self.source is not None or self.schedule is None:
            return self.source
        return self.schedule.source


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the sampler, and its final latents, (samples, ...)."""

    latents: Tensor
    seconds: float
    stats: CacheStats


@dataclass
class _Tally:
    """What is known of one policy so far."""

    seconds: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    latents: list[Tensor] = field(default_factory=list)
    stats: list[CacheStats] = field(default_factory=list)


@dataclass(kw_only=True)
class Judge:
    """Collects runs and makes the report of them.

    Attributes:
        policies: Ways to run the denoiser, the plain one among them.
        metrics: Functions of reference and samples, beside relative L2; see `evaluate`.
        summaries: Functions of all samples of a policy; see `evaluate`.
        keep: Samples of every policy to keep, at least 0; infinite for all.
        decode: Makes samples of final latents, (n, ...) each.
        view: Gives what is denoised of final latents, (n, ...), which relative L2 is of.
        tallies: What is known of every policy so far, by name.
        rehearsal: Latents of an untimed plain run of the first seed.
        repeat: Relative L2 of two plain runs of one seed.
        count: Samples so far.
        last: Latents of the plain run of the latest seed.
        doubts: By how much exact solutions may be off, of every seed; empty if none were looked at.
    """

    policies: Sequence[Policy]
    metrics: Mapping[str, Metric]
    summaries: Mapping[str, Summary]
    keep: float
    decode: Callable[[Tensor], Tensor]
    view: Callable[[Tensor], Tensor] = lambda latents: latents
    tallies: dict[str, _Tally] = field(default_factory=dict)
    rehearsal: Tensor | None = None
    repeat: float | None = None
    count: int = 0
    last: Tensor | None = None
    doubts: list[float] = field(default_factory=list)

    def warm(self, policy: Policy, run: Run) -> None:
        """Take an untimed run: the plain one shows later how well the sampler repeats itself."""
        if policy.schedule is None:
            self.rehearsal = run.latents

    def take(self, runs: Mapping[str, Run], exact: ExactFinal | None = None) -> None:
        """Take the runs of one seed.

        Args:
            runs: By the names of the policies.
            exact: What the exact solution of that seed ends with, of every seed or none.
        """
        reference = self.last = runs[PLAIN].latents
        if self.rehearsal is not None:
            self.repeat = float(self._rel_l2(self.rehearsal, reference).mean())
            self.rehearsal = None
        for name, run in runs.items():
            tally = self.tallies.setdefault(name, _Tally())
            tally.seconds.append(run.seconds)
            tally.stats.append(run.stats)
            for metric, values in self._measured(reference, run.latents).items():
                tally.values.setdefault(metric, []).extend(values.tolist())
            if exact is not None:
                away = exact.distances(run.latents)
                tally.values.setdefault(EXACT_REL_L2, []).extend(away.tolist())
            if self.summaries or self.count < self.keep:
                tally.latents.append(run.latents.cpu())
        if exact is not None:
            self.doubts.append(exact.doubt)
        self.count += len(reference)

    def _measured(self, reference: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Return the values of one run by every metric, (samples,) each."""
        found = {"rel_l2": self._rel_l2(reference, latents)}
        if self.metrics:
            pair = self.decode(reference), self.decode(latents)
            found |= {name: _values(name, each, *pair) for name, each in self.metrics.items()}
        return found

    def _rel_l2(self, reference: Tensor, latents: Tensor) -> Tensor:
        return _values("rel_l2", relative_l2, self.view(reference), self.view(latents))

    def report(
        self,
        fingerprint: Fingerprint,
        seeds: tuple[int, ...],
        warmup: int,
        ours: frozenset[str],
        cost: Cost | None,
        device: torch.device,
        calibration_samples: int | None,
    ) -> Report:
        """Return the report of all runs taken."""
        rows = [
            self._row(policy, fingerprint, policy.name in ours, cost) for policy in self.policies
        ]
        self._warn_of_noise(rows)
        schedules = [policy.schedule for policy in self.policies if policy.schedule is not None]
        assert self.last is not None
        return Report(
            rows=tuple(rows),
            seeds=seeds,
            calibration_seeds=tuple(sorted({s for each in schedules for s in each.source.seeds})),
            calibration_samples=calibration_samples,
            warmup=warmup,
            num_samples=self.count,
            sample_shape=tuple(self.last.shape[1:]),
            sample_dtype=str(self.last.dtype).removeprefix("torch."),
            compute_unit=_unit(schedules, cost),
            plain_repeat_rel_l2=self.repeat,
            exact_doubt=statistics.fmean(self.doubts) if self.doubts else None,
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
        compute = _compute(policy.schedule, cost) if policy.compute is None else policy.compute
        metrics = {name: _result(values) for name, values in tally.values.items()}
        summaries = self._summaries(tally)
        psnr = metrics.get("psnr_db")
        low, high = interval_of_mean(metrics["rel_l2"].samples)
        return ReportRow(
            policy=policy.name,
            ours=ours,
            solver=fingerprint.solver,
            evaluations=policy.evaluations or fingerprint.evaluations,
            compute=compute,
            seconds=statistics.median(tally.seconds),
            seconds_each=tuple(tally.seconds),
            speedup=speedup,
            of_limit=None if compute is None else speedup * compute,
            rel_l2=metrics["rel_l2"].mean,
            rel_l2_spread=metrics["rel_l2"].spread,
            rel_l2_low=low,
            rel_l2_high=high,
            psnr_db=None if psnr is None else psnr.mean,
            frechet=summaries.get("frechet"),
            accuracy=summaries.get("accuracy"),
            metrics=metrics,
            summaries=summaries,
            source=policy.provenance,
            prediction=None if policy.schedule is None else policy.schedule.prediction,
            **_counts(policy, tally.stats),
        )

    def _summaries(self, tally: _Tally) -> dict[str, float]:
        if not self.summaries:
            return {}
        samples = self.decode(torch.cat(tally.latents))
        with torch.no_grad():
            return {name: float(function(samples)) for name, function in self.summaries.items()}

    def _kept(self) -> dict[str, Tensor]:
        if not self.keep:
            return {}
        limit = None if math.isinf(self.keep) else int(self.keep)
        kept = {name: torch.cat(tally.latents)[:limit] for name, tally in self.tallies.items()}
        return {name: self.decode(latents) for name, latents in kept.items()}

    def _warn_of_noise(self, rows: Sequence[ReportRow]) -> None:
        """Warn of policies that differ from plain hardly more than plain differs from itself."""
        if not self.repeat:
            return
        unclear = [r.policy for r in rows if r.policy != PLAIN and r.rel_l2 <= 2 * self.repeat]
        if unclear:
            warn(
                f"two plain runs of one seed differ by a relative L2 of {self.repeat:.3g}, which "
                f"hides what {unclear} did; does `run` make all its noise from the seed?",
            )


def _values(name: str, function: Metric, reference: Tensor, samples: Tensor) -> Tensor:
    """Return one value per sample, (n,) float64 on the CPU."""
    if samples.shape != reference.shape:
        raise EvaluationError(
            f"`run` returned {tuple(samples.shape)}, but {tuple(reference.shape)} for the plain "
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
    if known is None or not (known.counted or schedule.whole):
        return None
    return schedule.compute_fraction(known)


def _unit(schedules: Sequence[Schedule], cost: Cost | None) -> Literal["MACs", "evaluations"]:
    known = [cost or schedule.cost for schedule in schedules]
    counted = all(each is None or each.counted for each in known)
    return "MACs" if counted else "evaluations"


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
