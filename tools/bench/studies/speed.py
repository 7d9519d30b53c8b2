"""Counting and timing of policies side by side, for a model of any modality."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import smoothcache_core as core
import torch
from cyclopts import Parameter
from smoothcache_core import Adapter, calibrate
from smoothcache_core.calls.flops import flop_counter
from smoothcache_core.schedule import Cost
from torch import Tensor, nn
from tqdm import tqdm

from tools.bench.baselines.peers import quiet
from tools.bench.options import dtype_of
from tools.bench.policies import PLAIN, Attachable, Attached, Policy, named
from tools.bench.records import Record, Row, new_record
from tools.bench.shared_weights import shapes_of, sharing
from tools.bench.timing import Piece, Run, Seconds, Verdict, judge, race

SEED = 0

QUESTION = (
    "How much of its MAC saving does caching turn into time, against the plain model and peers?"
)
NOTES = (
    "speedup is the plain model's time over the policy's: one over the median of paired ratios, "
    "each of two times taken moments apart, weighted over the kinds of evaluation (same MACs, same "
    "kind); speedup_low and speedup_high are the 95 % bootstrap interval of it.",
    "compute is MACs over the plain model's, counted by torch's flop counter over the run of "
    "that very policy; of_limit is speedup x compute, 1 if every MAC saved were time saved.",
    "overhead is how much longer an evaluation takes that computes everything, over the plain "
    "model's: the cost of being wrapped, of deciding and of keeping outputs.",
    "seconds is speedup applied to the plain model's median; seconds_sum is the mere sum of all "
    "times of a run.",
    "bytes_peak is the most that this library's cache held after any evaluation, predicted_bytes "
    "what the schedule says of it before.",
    "Lines that a peer prints go nowhere, at the cost of formatting them.",
)


class Sampler(Run, Attachable, Protocol):
    """A sampler under one policy, stopped between evaluations."""

    attached: Attached

    @property
    def latent(self) -> Tensor:
        """The latent now."""
        ...


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed.

    Attributes:
        modality: As in records.
        model: Name of the model in records.
        full_size: Whether it has the size of the published model.
        solver: Name of the solver.
        batch: Size of the batch, in words.
        adapter: Where the sites of the model are.
        build: Returns the model on a device, in a data type.
        sampling: Runs a model, a copy that nobody else uses, under a policy, for so many
            evaluations.
        policies: What is compared, the plain model first.
        packages: Whose versions are recorded.
        notes: How to read the rows, besides `NOTES`.
        equals: Keys of policies whose final latents must be those of another, bit for bit.
    """

    modality: str
    model: str
    full_size: bool
    solver: str
    batch: str
    adapter: Adapter
    build: Callable[[torch.device, torch.dtype], Any]
    sampling: Callable[[Any, Policy, int], AbstractContextManager[Sampler]]
    policies: Sequence[Policy]
    packages: Sequence[str]
    notes: Sequence[str] = ()
    equals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one benchmark.

    Attributes:
        evaluations: Evaluations of one run, at least 4.
        rounds: Runs of every policy, at least 1.
        device: cpu or cuda.
        dtype: Data type of model and latent: float32, float16 or bfloat16.
        piece: What is timed at once; auto is whole runs on a GPU, else evaluations.
        only: Only these policies, by name or by name and setting; the plain model always runs.
        progress: Show progress bars.

    Raises:
        ValueError: A setting is impossible.
    """

    evaluations: int = 50
    rounds: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    piece: Piece | Literal["auto"] = "auto"
    only: Annotated[Sequence[str], Parameter(name="--policy")] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        if self.evaluations < 4 or self.rounds < 1:
            raise ValueError(
                "evaluations must be at least 4 and rounds at least 1, "
                f"got {self.evaluations} and {self.rounds}"
            )
        dtype_of(self.dtype)

    @property
    def timed(self) -> Piece:
        """What is timed at once."""
        if self.piece != "auto":
            return self.piece
        return "run" if self.device.startswith("cuda") else "evaluation"


@torch.no_grad()
def measure_speed(subject: Subject, settings: Settings) -> Record:
    """Time all policies and return the record.

    Raises:
        ValueError: A policy to run is not known.
    """
    chosen = named(subject.policies, settings.only)
    model = subject.build(torch.device(settings.device), dtype_of(settings.dtype))
    _say_budget(settings, chosen, _warm_up(subject, model, settings))
    counted, refused = _count_all(subject, model, chosen, settings)
    cost = cost_of(subject, model)
    with ExitStack() as stack:
        samplers = {
            policy: stack.enter_context(
                subject.sampling(sharing(model), policy, settings.evaluations)
            )
            for policy in counted
        }
        seconds = _race(samplers, settings)
        rows = [
            _row(subject, settings, policy, samplers[policy], counted, seconds, cost)
            for policy in counted
        ]
        checks = _checks(subject, samplers)
    return to_record(
        "speed",
        QUESTION,
        subject,
        settings,
        rows=rows,
        refused=refused,
        checks=checks,
        notes=(*NOTES, *subject.notes),
    )


# ---------------------------------------------------------------------------- counting


def count(
    subject: Subject, model: nn.Module, policy: Policy, evaluations: int, *, progress: bool = False
) -> list[int]:
    """Return the MACs of every evaluation of a real run under `policy`.

    A policy that does not look at the data runs on shapes alone, which takes no time.
    """
    copy = sharing(model) if policy.looks_at_data else shapes_of(model)
    macs = []
    with subject.sampling(copy, policy, evaluations) as sampler:
        sampler.start()
        steps = range(evaluations)
        for step in tqdm(steps, desc=f"counting {policy.name}", disable=not progress, leave=False):
            with flop_counter() as counter:
                sampler.evaluate(step)
            macs.append(counter.get_total_flops() // 2)
            sampler.advance(step)
    return macs


def _count_all(
    subject: Subject, model: nn.Module, chosen: Sequence[Policy], settings: Settings
) -> tuple[dict[Policy, list[int]], list[Row]]:
    """Return the MACs of the policies that work, and why the others do not."""
    counted: dict[Policy, list[int]] = {}
    refused: list[Row] = []
    for policy in chosen:
        slow = settings.progress and policy.looks_at_data
        try:
            with quiet():
                counted[policy] = count(subject, model, policy, settings.evaluations, progress=slow)
        except Exception as error:
            if policy.ours or policy.name == PLAIN.name:
                raise
            first = (str(error).strip().splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}"
            refused.append({"policy": policy.name, "setting": policy.setting, "reason": reason})
    return counted, refused


def cost_of(subject: Subject, model: nn.Module) -> Cost:
    """Return what the sites cost, by calibrating one evaluation; predictions are made from it."""
    copy = sharing(model)
    with subject.sampling(copy, PLAIN, 4) as sampler:
        sampler.start()

        def one(seed: int) -> None:
            del seed
            sampler.evaluate(0)

        taken = core.Sampler(model=copy, adapter=subject.adapter, run=one)
        return calibrate(taken, seeds=[SEED], max_lag=1, sensitivity=0, progress=False).cost


# ---------------------------------------------------------------------------- timing


def _warm_up(subject: Subject, model: nn.Module, settings: Settings) -> float:
    """Return the seconds of a plain evaluation, after two that load code and touch all weights."""
    with subject.sampling(sharing(model), PLAIN, 4) as sampler:
        seconds = race(
            {"plain": sampler},
            evaluations=3,
            rounds=1,
            piece="evaluation",
            device=torch.device(settings.device),
            seed=SEED,
            progress=False,
        )
    return float(seconds["plain"][0, -1])


def _say_budget(settings: Settings, chosen: Sequence[Policy], seconds: float) -> None:
    """Print how long it will take, at two thirds of the plain model's time per policy."""
    if not settings.progress:
        return
    rounds = settings.rounds + (settings.timed == "run")
    runs = rounds * len(chosen) + sum(policy.looks_at_data for policy in chosen)
    minutes = runs * settings.evaluations * seconds * 2 / 3 / 60
    print(
        f"{seconds:.3g} s for a plain evaluation: about {minutes:.0f} minutes for {runs} runs of "
        f"{settings.evaluations} evaluations, some of them cached",
        file=sys.stderr,
    )


def _race(samplers: Mapping[Policy, Sampler], settings: Settings) -> dict[str, Seconds]:
    """Time the samplers; whole runs get one unrecorded round first."""
    runs = {policy.key: sampler for policy, sampler in samplers.items()}
    rounds = settings.rounds + (settings.timed == "run")
    with quiet():
        seconds = race(
            runs,
            evaluations=settings.evaluations,
            rounds=rounds,
            piece=settings.timed,
            device=torch.device(settings.device),
            seed=SEED,
            progress=settings.progress,
        )
    return {key: times[-settings.rounds :] for key, times in seconds.items()}


def _row(
    subject: Subject,
    settings: Settings,
    policy: Policy,
    sampler: Sampler,
    counted: Mapping[Policy, Sequence[int]],
    seconds: Mapping[str, Seconds],
    cost: Cost,
) -> Row:
    macs, all_macs = counted[policy], counted[PLAIN]
    kinds = macs if settings.timed == "evaluation" else [sum(macs)]
    full = all_macs[0] if settings.timed == "evaluation" else sum(all_macs)
    verdict = judge(seconds[policy.key], seconds[PLAIN.key], kinds)
    compute = sum(macs) / sum(all_macs)
    schedule, stats = sampler.attached.schedule, sampler.attached.stats
    row: dict[str, Any] = {
        **about(subject, settings),
        "policy": policy.name,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        **times_of(verdict, compute),
    }
    if full in verdict.ratios and policy != PLAIN:
        row["overhead"] = verdict.ratios[full] - 1.0
    if schedule is not None and stats is not None:
        row["predicted_compute"] = schedule.compute_fraction(cost)
        row["bytes_peak"] = stats.bytes_peak
        row["predicted_bytes"] = schedule.predicted_bytes(cost)
    return row


def about(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Return what all rows of a record have in common."""
    return {
        "modality": subject.modality,
        "model": subject.model,
        "full_size": subject.full_size,
        "solver": subject.solver,
        "evaluations": settings.evaluations,
    }


def times_of(verdict: Verdict, compute: float) -> Row:
    """Return what a verdict says of a policy of so much compute, for a row of a record."""
    return {
        "seconds": verdict.seconds,
        "speedup": 1.0 / verdict.relative,
        "speedup_low": 1.0 / verdict.high,
        "speedup_high": 1.0 / verdict.low,
        "of_limit": compute / verdict.relative,
        "seconds_sum": verdict.seconds_sum,
    }


def _checks(subject: Subject, samplers: Mapping[Policy, Sampler]) -> dict[str, bool]:
    """Compare final latents that must be equal bit for bit."""
    latents = {policy.key: sampler.latent.nan_to_num() for policy, sampler in samplers.items()}
    return {
        f"{one} gives the sample of {other} bit for bit": torch.equal(latents[one], latents[other])
        for one, other in subject.equals.items()
        if one in latents and other in latents
    }


def to_record(
    what: str, question: str, subject: Subject, settings: Settings, **measured: Any
) -> Record:
    """Return a record of a benchmark of random weights."""
    return new_record(
        what=what,
        modality=subject.modality,
        question=question,
        packages=subject.packages,
        device=torch.device(settings.device),
        seeds={"calibration": [], "evaluation": [SEED]},
        settings={
            "dtype": settings.dtype,
            "batch": subject.batch,
            "rounds": settings.rounds,
            "timed": f"each {settings.timed}, in lockstep, order shuffled",
            "weights": "random",
        },
        **measured,
    )
