"""How the check of a GPU measures one model in one way of compiling, against the clock."""

import signal
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from smoothcache_core.schedule import Cost
from torch._dynamo.utils import counters

from tools.bench.baselines.peers import quiet
from tools.bench.counting import counting, macs_by_leaf
from tools.bench.policies import PLAIN, Policy
from tools.bench.records import Row
from tools.bench.shared_weights import sharing
from tools.bench.studies.gpu_testbeds import Testbed, Way, compiled
from tools.bench.studies.speed import SEED, Sampler, times_of
from tools.bench.timing import Seconds, judge, race

RESERVE = 25.0  # seconds: for writing, and for what no clock interrupts
PATIENCE: Mapping[Way, float] = {"eager": 5.0, "regional": 40.0, "whole": 90.0, "graphs": 90.0}
"""Seconds that must be left before a policy is begun: what compiling a full-size model may take."""
ROUNDS = 5  # timed runs of every policy, if there is time


class OutOfTimeError(BaseException):
    """The time is up; no measurement may take it for its own error."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When all must be done."""

    end: float

    def left(self) -> float:
        """Seconds left for measurements."""
        return self.end - time.monotonic() - RESERVE

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Raise `OutOfTimeError` inside when the time is up."""

        def ring(number: int, frame: object) -> None:
            del number, frame
            raise OutOfTimeError

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.01))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)


@dataclass
class Findings:
    """What is known of one testbed so far.

    Attributes:
        testbed: The testbed.
        rows: One for each way of compiling and policy.
        refused: What was not measured, with the reason.
        latents: Final latents of eager runs, by the key of the policy.
        computes: MACs over those of the plain run, by the key of the policy.
    """

    testbed: Testbed
    rows: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    latents: dict[str, torch.Tensor] = field(default_factory=dict)
    computes: dict[str, float] = field(default_factory=dict)

    def refuse(self, way: Way, policy: Policy, reason: str) -> None:
        """Note what was not measured."""
        known = {"compiled": way, "policy": policy.name, "setting": policy.setting}
        self.refused.append(known | {"reason": reason})


def measure_case(findings: Findings, model: Any, cost: Cost, way: Way, clock: Clock) -> None:
    """Measure all policies in one way of compiling, as far as the time allows."""
    testbed = findings.testbed
    torch.compiler.reset()
    with ExitStack() as stack:
        samplers: dict[Policy, Sampler] = {}
        facts: dict[Policy, dict[str, Any]] = {}
        for policy in testbed.subject.policies:
            if way in ("whole", "graphs") and not policy.ours and policy != PLAIN:
                findings.refuse(way, policy, "not run: it goes inside the model, not around it")
            elif clock.left() < PATIENCE[way]:
                findings.refuse(way, policy, f"not run: {max(clock.left(), 0.0):.0f} s were left")
            else:
                try:
                    samplers[policy], facts[policy] = _begun(stack, findings, model, policy, way)
                except Exception as error:
                    findings.refuse(way, policy, reason(error))
        if PLAIN not in samplers:
            return
        seconds = _raced(testbed, samplers, facts, clock)
        for policy, sampler in samplers.items():
            row = _row(findings, policy, sampler, facts[policy], seconds, cost, way)
            findings.rows.append(row)


def reason(error: Exception) -> str:
    """Return the first line of an error, with its class."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


def _begun(
    stack: ExitStack, findings: Findings, model: Any, policy: Policy, way: Way
) -> tuple[Sampler, dict[str, Any]]:
    """Attach a policy, make a first and a second run, and leave it attached."""
    testbed = findings.testbed
    with ExitStack() as own:
        copy = compiled(testbed, sharing(model), way)
        sampling = testbed.subject.sampling(copy, policy, testbed.evaluations)
        sampler: Any = own.enter_context(sampling)
        if way == "graphs":
            sampler = _Marked(sampler)
        with quiet():
            facts = _first_run(sampler, testbed.evaluations)
            macs = macs_of(testbed, model) if way == "eager" else {}
            facts |= _second_run(sampler, testbed.evaluations, counted=macs)
        if way == "eager":
            _keep(findings, policy, facts)
        stack.push(own.pop_all())
    return sampler, facts


def _keep(findings: Findings, policy: Policy, facts: dict[str, Any]) -> None:
    """Keep what compiled runs are compared with: the eager latent, and compute."""
    findings.latents[policy.key] = facts["latent"]
    findings.computes[policy.key] = facts.pop("macs")


def macs_of(testbed: Testbed, model: Any) -> Mapping[str, int]:
    """Return the MACs of one batch row in a call of every layer."""
    with testbed.subject.sampling(sharing(model), PLAIN, 4) as plain:
        plain.start()
        return macs_by_leaf(plain.model, lambda: plain.evaluate(0))


def _run(sampler: Sampler, evaluations: int, around: Callable[[], Any]) -> None:
    sampler.start()
    for evaluation in range(evaluations):
        with around():
            sampler.evaluate(evaluation)
        sampler.advance(evaluation)


def _first_run(sampler: Sampler, evaluations: int) -> dict[str, Any]:
    """Make a run; return its seconds, what it compiled and its final latent."""
    counters.clear()
    begin = time.perf_counter()
    _run(sampler, evaluations, ExitStack)
    latent = sampler.latent.float().cpu()  # waits for the device
    return {
        "first_run_seconds": time.perf_counter() - begin,
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "latent": latent,
    }


def _second_run(
    sampler: Sampler, evaluations: int, *, counted: Mapping[str, int]
) -> dict[str, Any]:
    """Make a run; return its seconds, MACs, memory and device synchronisations."""
    waits: list[int] = []
    on_gpu = sampler.latent.is_cuda
    with ExitStack() as stack:
        tally = stack.enter_context(counting(sampler.model, counted)) if counted else None
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated() if on_gpu else 0
        begin = time.perf_counter()
        _run(sampler, evaluations, partial(_waiting, waits) if on_gpu else ExitStack)
        if on_gpu:
            torch.cuda.synchronize()
        found: dict[str, Any] = {"run_seconds": time.perf_counter() - begin}
        if on_gpu:
            found["peak_over_start"] = torch.cuda.max_memory_allocated() - start
            found["syncs_per_evaluation"] = sum(waits) / evaluations
    return found | ({"macs": tally.macs} if tally else {})


@contextmanager
def _waiting(waits: list[int]) -> Generator[None]:
    """Note how many calls inside wait for the device."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits.append(sum("synchronizing CUDA" in str(each.message) for each in told))


def _raced(
    testbed: Testbed,
    samplers: Mapping[Policy, Sampler],
    facts: Mapping[Policy, Mapping[str, Any]],
    clock: Clock,
) -> dict[str, Seconds]:
    """Time whole runs in lockstep, as many as there is time for, one at least."""
    once = sum(each["run_seconds"] for each in facts.values())
    rounds = min(max(int(0.5 * clock.left() / once), 1), ROUNDS)
    with quiet():
        return race(
            {policy.key: sampler for policy, sampler in samplers.items()},
            evaluations=testbed.evaluations,
            rounds=rounds,
            piece="run",
            device=next(iter(samplers.values())).latent.device,
            seed=SEED,
            progress=False,
        )


@dataclass(frozen=True)
class _Marked:
    """A sampler that tells CUDA graphs when an evaluation begins."""

    sampler: Sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def evaluate(self, evaluation: int) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        self.sampler.evaluate(evaluation)


def _row(
    findings: Findings,
    policy: Policy,
    sampler: Sampler,
    facts: Mapping[str, Any],
    seconds: Mapping[str, Seconds],
    cost: Cost,
    way: Way,
) -> Row:
    subject, evaluations = findings.testbed.subject, findings.testbed.evaluations
    verdict = judge(seconds[policy.key], seconds[PLAIN.key], [0])
    schedule, stats = sampler.attached.schedule, sampler.attached.stats
    compute = 1.0 if schedule is None else schedule.compute_fraction(cost)
    if policy.key in findings.computes:
        compute = findings.computes[policy.key] / findings.computes[PLAIN.key]
    row: dict[str, Any] = {
        "modality": subject.modality,
        "model": subject.model,
        "full_size": subject.full_size,
        "solver": subject.solver,
        "evaluations": evaluations,
        "compiled": way,
        "policy": policy.name,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        "milliseconds": 1000.0 * verdict.seconds / evaluations,
        **times_of(verdict, compute),
    }
    if policy.setting == "all computed":
        row["overhead"] = verdict.relative - 1.0
    if schedule is not None and stats is not None:
        row["predicted_compute"] = schedule.compute_fraction(cost)
        row["bytes_peak"] = stats.bytes_peak
        row["predicted_bytes"] = schedule.predicted_bytes(cost)
    kept = ("first_run_seconds", "graphs", "graph_breaks", "peak_over_start")
    row |= {key: facts[key] for key in (*kept, "syncs_per_evaluation") if key in facts}
    if policy.key in findings.latents:
        wanted = findings.latents[policy.key]
        row["rel_l2"] = float((facts["latent"] - wanted).norm() / wanted.norm())
    return row
