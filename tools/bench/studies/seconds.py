"""How much of the MACs that a plan saves does it save in time, on a model sampled as users do?

    python -m tools.bench seconds image
    python -m tools.bench seconds audio

Plans for a shipped model and samples it, plain and by every plan, by its own pipeline or sampler.
All go in lockstep, see `timing.py`: the loops wait at the denoiser, and everything from one
call of it to the next is timed, the solver's steps and whatever else a pipeline does. Writes a
record into benchmarks/.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from cyclopts import Parameter
from smoothcache_core import Schedule

from tools.bench.baselines.ours import Material, our_policies, scheduled
from tools.bench.bench import CALIBRATION_SEED, Bench, calibrated, load_bench
from tools.bench.models.model import Modality
from tools.bench.policies import Attach, plain
from tools.bench.records import Record, Row, new_record
from tools.bench.stepping import HaltedSampler, halted
from tools.bench.studies.speed import times_of
from tools.bench.timing import Seconds, judge, race

QUESTION = "How much of the MACs that a plan saves does it save in time?"
NOTES = (
    "Every run goes through the model's own pipeline or sampler. What is timed lasts from one call "
    "of the denoiser to the next, the first piece from the beginning of the run.",
    "speedup is the plain run's time over the plan's: one over the median of paired ratios, each "
    "of two times taken moments apart, weighted over the kinds of evaluation (what is computed in "
    "it); speedup_low and speedup_high are its 95 % bootstrap interval.",
    "compute is MACs counted over those of the plain run, of_limit is speedup x compute, 1 if "
    "every MAC saved were time saved. What passes outside the denoiser is never saved.",
    "seconds is speedup applied to the plain run's median.",
)
SEED = 1000
PLAIN, CONTROL = "plain", "plain again"
POLICIES = ("planned", "planned-denoiser", "planned-sites")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        model: Name of a shipped model.
        solver: Name of its solver.
        steps: Steps of the solver.
        batch: Samples of one run.
        computes: Compute fractions to plan for, in (0, 1).
        policies: Which plans, as in the benchmark of quality.
        calibration_samples: Samples to calibrate with, one batch.
        rounds: Runs of every plan, after one that is not counted.
        progress: Show progress bars.

    Raises:
        ValueError: A setting is impossible.
    """

    model: str
    solver: str
    steps: int = 50
    batch: int = 32
    computes: Annotated[Sequence[float], Parameter(name="--compute")] = (0.5, 0.25)
    policies: Annotated[Sequence[str], Parameter(name="--policy")] = POLICIES
    calibration_samples: int = 16
    rounds: int = 5
    progress: bool = True

    def __post_init__(self) -> None:
        known = our_policies()
        if unknown := sorted(set(self.policies) - set(known)):
            raise ValueError(f"no plan is called {unknown}; there are {sorted(known)}")
        if not self.computes or not all(0.0 < compute < 1.0 for compute in self.computes):
            raise ValueError(f"computes are fractions in (0, 1), got {list(self.computes)}")
        for name, least in {"batch": 1, "rounds": 1, "steps": 4}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Settings):
    """Settings on the digits model."""

    model: str = "digits"
    solver: str = "ddim"


@dataclass(frozen=True, kw_only=True)
class AudioSettings(Settings):
    """Settings on the spoken-digits model."""

    model: str = "spoken-digits"
    solver: str = "dpmpp-2m"


# ---------------------------------------------------------------------------- measuring


@torch.no_grad()
def measure(modality: Modality, settings: Settings) -> Record:
    """Plan, time all plans and the plain model, and return the record."""
    bench = load_bench(
        modality, settings.model, settings.solver, steps=settings.steps, device="cpu"
    )
    plans = planned(bench, settings)
    ways: dict[str, Attach] = {PLAIN: plain, CONTROL: plain}
    ways |= {name: scheduled(plan) for name, plan in plans.items()}
    sampled = partial(bench.run, samples=settings.batch, seed=SEED)
    expected = {name: sampled(attach) for name, attach in ways.items()}
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(stopped(bench, settings, attach))
            for name, attach in ways.items()
        }
        seconds = raced(settings, runs, next(iter(plans.values())).evaluations)
        same = all(torch.equal(run.latents, expected[name].latents) for name, run in runs.items())
    rows = [
        row(settings, name, plans.get(name), seconds, bench.compute(run))
        for name, run in expected.items()
    ]
    return new_record(
        what="seconds",
        modality=modality.name,
        question=QUESTION,
        packages=modality.packages,
        seeds={"calibration": [CALIBRATION_SEED], "evaluation": [SEED]},
        settings={
            "solver": bench.solver.title,
            "evaluations": settings.steps,
            "batch": settings.batch,
            "rounds": settings.rounds,
            "calibration samples": settings.calibration_samples,
            "dtype": "float32",
        },
        rows=rows,
        notes=NOTES,
        checks={"a run that is stopped gives the samples of one that is not": same},
    )


def planned(bench: Bench, settings: Settings) -> dict[str, Schedule]:
    """Calibrate, and return all plans by policy and compute fraction."""
    material = Material(
        calibration=calibrated(
            bench, samples=settings.calibration_samples, progress=settings.progress
        ),
        sampler=bench.of_batch(settings.calibration_samples),
        seeds=[CALIBRATION_SEED],
    )
    known = our_policies()
    return {
        f"{policy} {compute:g}": known[policy](material, compute)
        for policy in settings.policies
        for compute in settings.computes
    }


@contextmanager
def stopped(bench: Bench, settings: Settings, attach: Attach) -> Generator[HaltedSampler]:
    """Put a policy on a sampler, and stop that at every call of its denoiser."""
    with attach(bench.of_batch(settings.batch)) as attached, halted(attached.sampler, SEED) as run:
        yield run


def raced(
    settings: Settings, runs: Mapping[str, HaltedSampler], evaluations: int
) -> dict[str, Seconds]:
    """Return the times of all runs but the first round's."""
    seconds = race(
        runs,
        evaluations=evaluations,
        rounds=settings.rounds + 1,
        piece="evaluation",
        device=torch.device("cpu"),
        seed=SEED,
        progress=settings.progress,
    )
    return {name: times[1:] for name, times in seconds.items()}


def row(
    settings: Settings,
    name: str,
    plan: Schedule | None,
    seconds: Mapping[str, Seconds],
    compute: float,
) -> Row:
    """Return a row of the record."""
    evaluations = seconds[PLAIN].shape[1]
    columns = zip(*plan.rows.values(), strict=True) if plan else [()] * evaluations
    first = [True, *[False] * (evaluations - 1)]
    kinds = list(zip(first, columns, strict=True))
    verdict = judge(seconds[name], seconds[PLAIN], kinds)
    return {
        "model": settings.model,
        "policy": name,
        "ours": plan is not None,
        "compute": compute,
        **times_of(verdict, compute),
    }
