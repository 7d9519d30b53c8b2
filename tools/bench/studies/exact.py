"""Measuring how far policies are from the exact solution: calibrate, choose settings, sample.

Every run is kept on disk as soon as it has finished, so that a study that is ended goes on where it
was, and parts of it may be measured at the same time.
"""

import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from smoothcache_core.errors import ScheduleError
from smoothcache_core.metrics import relative_l2
from torch import Tensor
from tqdm import tqdm

from tools.bench.baselines.peers import quiet
from tools.bench.bench import (
    CALIBRATION_SEED,
    Bench,
    calibrated,
    load_bench,
    ode_solution,
    save_tensors,
)
from tools.bench.models.model import Modality
from tools.bench.policies import PLAIN, OutOfReachError, Policy, asked_for
from tools.bench.studies.exact_once import solved_once
from tools.bench.studies.exact_policies import all_families, refusal
from tools.bench.studies.exact_settings import Case, Settings
from tools.bench.studies.quality_policies import Known, is_peer
from tools.bench.studies.quality_settings import work_folder
from tools.bench.studies.tuning import Trials, Tuner

FEW = 8
"""Samples of one half of the classes, where few are calibrated on."""
FREE = ("cases", "budgets", "fitted", "half", "only", "pictures")
"""Settings that a single run does not depend on."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a policy did at a budget.

    Attributes:
        policy: The policy.
        budget: Compute that was asked for.
        latents: Final samples (samples, ...) of every evaluation seed.
        compute: MACs counted over those of the plain run.
    """

    policy: Policy
    budget: float
    latents: Sequence[Tensor]
    compute: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of a case.

    Attributes:
        case: The case.
        bench: What was sampled.
        plain: The plain run.
        exact: The exact solutions from the same noise, of every evaluation seed.
        doubt: Relative L2 distance of the exact solution from that of half as many evaluations, on
            the choosing samples.
        sampled: All policies at all budgets.
        seeds: The evaluation seeds.
        calibrated: What plans were calibrated on, where that is something else than what is judged.
        refused: Policies that could not be run: label, budget and reason.
    """

    case: Case
    bench: Bench
    plain: Sampled
    exact: Sequence[Tensor]
    doubt: float
    sampled: Sequence[Sampled]
    refused: Sequence[tuple[str, float, str]]
    seeds: Sequence[int]
    calibrated: str = ""


@torch.no_grad()
def measure(modality: Modality, settings: Settings) -> Iterator[Measured]:
    """Yield what was measured of every case, one after the other."""
    folder = work_folder(settings, modality.name, besides=FREE)
    for words in settings.cases:
        case = Case.of(words)
        bench = bench_of(modality, case, settings.device)
        asked_for(all_families(bench, settings), settings.only)  # refuses others before all else
        place = _place(folder, str(case))
        with solved_once():
            found = measured(bench, case, settings, place, prepared(bench, settings, place))
        yield found


@torch.no_grad()
def of_halves(modality: Modality, settings: Settings) -> Iterator[Measured]:
    """Yield what plans toward the exact solution do on one half of the classes.

    They are calibrated on all classes, and on few samples of the other half.
    """
    folder = work_folder(settings, modality.name, besides=FREE)
    only = replace(settings, only=("toward exact", "toward exact, fitted"))
    few = replace(only, calibration_samples=FEW)
    for words in settings.cases:
        case = Case.of(words)
        bench = bench_of(modality, case, settings.device)
        one, other = halves(bench)
        for name, chosen, seen in (("all", only, bench), (f"{FEW}", few, one)):
            kept = _place(folder, str(case), "" if seen is bench else name)
            place = _place(folder, str(case), f"{name} on the other half")
            with solved_once():
                found = measured(other, case, chosen, place, prepared(seen, chosen, kept))
            yield replace(found, calibrated=f"{chosen.calibration_samples} samples of {_of(seen)}")


def halves(bench: Bench) -> tuple[Bench, Bench]:
    """Return the benches of one half of the classes, and of the other."""
    conditions = list(bench.sampler.conditions)
    middle = len(conditions) // 2
    one, other = (
        replace(bench, sampler=replace(bench.sampler, conditions=part))
        for part in (conditions[:middle], conditions[middle:])
    )
    return one, other


def _of(bench: Bench) -> str:
    return f"{len(bench.sampler.conditions)} classes"


def bench_of(modality: Modality, case: Case, device: str) -> Bench:
    """Return the bench of a case."""
    made = load_bench(modality, case.model, case.solver, steps=case.steps, device=device)
    return replace(made, sampler=replace(made.sampler, guidance=case.guidance))


def _place(folder: Path, *names: str) -> Path:
    """Return the folder of what is finished of a case."""
    return folder / re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, names)).lower())


def measured(
    bench: Bench, case: Case, settings: Settings, place: Path, known: tuple[Known, float]
) -> Measured:
    """Measure a case.

    Args:
        bench: What is judged.
        case: The case.
        settings: The settings.
        place: Folder of what is finished.
        known: What policies are made from, and the doubt of the exact solution.
    """
    place.mkdir(parents=True, exist_ok=True)
    material, doubt = known
    sampled: list[Sampled] = []
    refused: list[tuple[str, float, str]] = []
    families = all_families(material.bench, settings)
    labels = asked_for(families, settings.only)
    todo = [(label, budget) for budget in settings.budgets for label in labels]
    bar = tqdm(todo, desc=str(case), unit="policy", disable=not settings.progress)
    for label, budget in bar:
        bar.set_postfix_str(f"{label} at {budget:g}")
        accepted = Exception if is_peer(label) else (OutOfReachError, ScheduleError)
        try:
            with quiet():
                policies = list(families[label](material, budget))
                sampled += [_sampled(bench, each, budget, settings, place) for each in policies]
        except accepted as error:
            refused.append((label, budget, refusal(error)))
    return Measured(
        case=case,
        bench=bench,
        seeds=settings.seeds,
        plain=_sampled(bench, PLAIN, 1.0, settings, place),
        exact=[_exact(bench, settings, seed) for seed in settings.seeds],
        doubt=doubt,
        sampled=sampled,
        refused=refused,
    )


def prepared(bench: Bench, settings: Settings, place: Path) -> tuple[Known, float]:
    """Return what policies are made from, and how exact the exact solution is.

    Args:
        bench: The bench.
        settings: The settings.
        place: Folder of what is finished of the case.
    """
    place.mkdir(parents=True, exist_ok=True)
    calibration = calibrated(
        bench,
        samples=settings.calibration_samples,
        checkpoint=place / "calibration.safetensors",
        reference="exact",
        progress=settings.progress,
    )
    few, steps = settings.choosing_samples, settings.reference_steps
    exact, half = (_solved(bench, settings, few, CALIBRATION_SEED, n) for n in (steps, steps // 2))
    trials = Trials(bench=bench, seed=CALIBRATION_SEED, reference=exact, path=place / "trials.json")
    known = Known(
        bench=bench,
        calibration=calibration,
        samples=settings.calibration_samples,
        trials=trials,
        tuner=Tuner(trials),
    )
    return known, float(relative_l2(exact, half).mean())


def _exact(bench: Bench, settings: Settings, seed: int) -> Tensor:
    return _solved(bench, settings, settings.samples, seed, settings.reference_steps)


def _solved(bench: Bench, settings: Settings, samples: int, seed: int, steps: int) -> Tensor:
    return ode_solution(bench, samples=samples, seed=seed, steps=steps, folder=settings.work)


def _sampled(
    bench: Bench, policy: Policy, budget: float, settings: Settings, place: Path
) -> Sampled:
    """Sample by a policy from all seeds, or read what is kept of it."""
    latents, computes = [], []
    for seed in settings.seeds:
        path = place / f"run-{_digest(policy)}-{seed}.pt"
        if not path.exists():
            run = bench.run(policy.attach, samples=settings.samples, seed=seed)
            save_tensors(path, {"latents": run.latents, "compute": bench.compute(run)})
        kept = torch.load(path)
        latents.append(kept["latents"])
        computes.append(kept["compute"])
    return Sampled(
        policy=policy, budget=budget, latents=latents, compute=statistics.fmean(computes)
    )


def _digest(policy: Policy) -> str:
    """Return what tells policies, or settings of them, apart."""
    schedule = policy.schedule and policy.schedule.to_json()
    known = [policy.label, policy.setting, schedule]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
