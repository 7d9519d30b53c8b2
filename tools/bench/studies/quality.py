"""Running the quality benchmark: calibrate, choose settings, sample, judge.

The runs of one budget and one seed are a block: all policies from the same noise, with a plain run
among them whose time is compared with theirs. A finished block is kept on disk.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from smoothcache_core import Schedule
from smoothcache_core.errors import ScheduleError
from torch import Tensor
from tqdm import tqdm

from tools.bench.baselines.ours import Plan, our_policies, scheduled
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
from tools.bench.studies.quality_policies import Family, Known, families, is_peer
from tools.bench.studies.quality_settings import Settings, work_folder
from tools.bench.studies.tuning import Trials, Tuner

TWICE = "plain runs from one seed are equal bit for bit"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one policy did at one budget from one seed.

    Attributes:
        latents: Final samples, (samples, ...).
        seconds: Times of its runs.
        compute: MACs counted over those of the plain run.
        bytes_peak: See `Run`.
    """

    latents: Tensor
    seconds: Sequence[float]
    compute: float
    bytes_peak: int | None


Block = Mapping[str, Cell]
"""The cells of one budget and seed by the label of the policy."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured.

    Attributes:
        bench: What was sampled.
        policies: The policies of every budget.
        blocks: The blocks of every budget, in the order of the seeds.
        exact: The exact solutions from the same noise, in the order of the seeds; None if the
            solver is stochastic.
        refused: Policies that could not be run, with their reason.
        checks: What was verified.
    """

    bench: Bench
    policies: Mapping[float, Sequence[Policy]]
    blocks: Mapping[float, Sequence[Block]]
    exact: Sequence[Tensor] | None
    refused: Sequence[Mapping[str, Any]]
    checks: Mapping[str, bool]


@dataclass
class _Refusals:
    """Policies that could not be run."""

    budgets: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, budget: float, label: str, error: Exception) -> None:
        """Note that a policy refused at a budget."""
        reason = (str(error).strip().splitlines() or [""])[0]
        if not isinstance(error, OutOfReachError | ScheduleError):
            reason = f"{type(error).__name__}: {reason}"
        self.budgets.setdefault((label, reason), []).append(budget)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each policy and reason."""
        return [
            {"policy": label, "budgets": ", ".join(f"{b:g}" for b in budgets), "reason": reason}
            for (label, reason), budgets in self.budgets.items()
        ]


# ---------------------------------------------------------------------------- all of it


@torch.no_grad()
def measure(
    modality: Modality, settings: Settings, *, ours: Mapping[str, Plan] | None = None
) -> Measured:
    """Run the benchmark.

    Args:
        modality: What is special about the modality of the model.
        settings: The settings.
        ours: This library's own policies; those of `our_policies` if not given.

    Raises:
        ValueError: A policy to run is not known.
    """
    bench = load_bench(
        modality,
        settings.model,
        settings.solver,
        steps=settings.steps,
        device=settings.device,
    )
    chosen = _chosen(settings, families(bench, our_policies() if ours is None else ours))
    folder = work_folder(settings, modality.name)
    known, checks = _prepared(settings, bench, folder)
    refusals = _Refusals()
    policies = {
        budget: [PLAIN, *_at_budget(settings, known, chosen, budget, refusals)]
        for budget in sorted(settings.budgets, reverse=True)
    }
    blocks = _sampled(settings, bench, folder, policies)
    return Measured(
        bench=bench,
        policies=policies,
        blocks=blocks,
        exact=_exact(settings, bench),
        refused=refusals.rows(),
        checks=_checked(settings, known, blocks, checks),
    )


def _chosen(settings: Settings, known: Mapping[str, Family]) -> dict[str, Family]:
    return {label: known[label] for label in asked_for(known, settings.only)}


# ---------------------------------------------------------------------------- before sampling


def _prepared(settings: Settings, bench: Bench, folder: Path) -> tuple[Known, dict[str, bool]]:
    """Calibrate, and sample the calibration seed plain and by a schedule that skips nothing."""
    samples = settings.calibration_samples
    calibration = calibrated(
        bench,
        samples=samples,
        checkpoint=folder / "calibration.safetensors",
        progress=settings.progress,
    )
    reference, again = (
        bench.run(PLAIN.attach, samples=samples, seed=CALIBRATION_SEED) for _ in range(2)
    )
    rows = dict.fromkeys(calibration.kinds, (1,) * calibration.evaluations)
    everything = Schedule(evaluations=calibration.evaluations, rows=rows)
    computed = bench.run(scheduled(everything), samples=samples, seed=CALIBRATION_SEED)
    trials = Trials(
        bench=bench,
        seed=CALIBRATION_SEED,
        reference=reference.latents,
        path=folder / "trials.json",
    )
    checks = {
        TWICE: torch.equal(reference.latents, again.latents),
        "a schedule that computes everything gives the plain samples bit for bit": torch.equal(
            reference.latents, computed.latents
        ),
    }
    known = Known(
        bench=bench,
        calibration=calibration,
        samples=samples,
        trials=trials,
        tuner=Tuner(trials),
    )
    return known, checks


def _at_budget(
    settings: Settings,
    known: Known,
    chosen: Mapping[str, Family],
    budget: float,
    refusals: _Refusals,
) -> list[Policy]:
    """Return the policies of a budget that work."""
    found: list[Policy] = []
    bar = tqdm(chosen.items(), desc=f"choosing for {budget:g}", disable=not settings.progress)
    for label, family in bar:
        bar.set_postfix_str(label)
        accepted = Exception if is_peer(label) else (OutOfReachError, ScheduleError)
        try:
            with quiet():
                policies = list(family(known, budget))
                if is_peer(label):
                    for policy in policies:
                        known.bench.run(policy.attach, samples=1, seed=CALIBRATION_SEED)
        except accepted as error:
            refusals.add(budget, label, error)
        else:
            found += policies
    return found


# ---------------------------------------------------------------------------- sampling


def _sampled(
    settings: Settings,
    bench: Bench,
    folder: Path,
    policies: Mapping[float, Sequence[Policy]],
) -> dict[float, list[Block]]:
    """Return the blocks of every budget; the sets of samples go one after the other."""
    blocks: dict[float, list[Block]] = {budget: [] for budget in policies}
    runs = len(settings.seeds) * settings.repeats * sum(len(each) for each in policies.values())
    bench.run(PLAIN.attach, samples=settings.samples, seed=CALIBRATION_SEED)  # warm up
    with tqdm(total=runs, desc="sampling", unit="run", disable=not settings.progress) as bar:
        for index, seed in enumerate(settings.seeds):
            for budget, entries in policies.items():
                path = folder / f"block-{_digest(entries)}-{budget:g}-{seed}.pt"
                if path.exists():
                    block = _loaded(path)
                    bar.update(settings.repeats * len(entries))
                else:
                    block = _block(settings, bench, entries, index, bar)
                    save_tensors(path, {label: vars(cell) for label, cell in block.items()})
                blocks[budget].append(block)
    return blocks


def _digest(entries: Sequence[Policy]) -> str:
    """Return what tells blocks of other policies, or settings of them, apart."""
    known = [
        (policy.label, policy.setting, policy.schedule and policy.schedule.to_json())
        for policy in entries
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]


def _loaded(path: Path) -> Block:
    return {label: Cell(**values) for label, values in torch.load(path).items()}


def _block(
    settings: Settings, bench: Bench, entries: Sequence[Policy], index: int, bar: "tqdm[Any]"
) -> Block:
    """Sample one seed by the policies of one budget, each time starting with another one."""
    seed, repeats = settings.seeds[index], settings.repeats
    cells: dict[str, Cell] = {}
    for repeat in range(repeats):
        turn = index * repeats + repeat
        first = turn * len(entries) // (repeats * len(settings.seeds))
        for policy in (*entries[first:], *entries[:first]):
            bar.set_postfix_str(policy.label)
            with quiet():
                run = bench.run(policy.attach, samples=settings.samples, seed=seed)
            before = cells.get(policy.label)
            cells[policy.label] = Cell(
                latents=run.latents,
                seconds=[*(before.seconds if before else ()), run.seconds],
                compute=bench.compute(run),
                bytes_peak=run.bytes_peak,
            )
            bar.update()
    return {policy.label: cells[policy.label] for policy in entries}


def _exact(settings: Settings, bench: Bench) -> list[Tensor] | None:
    if bench.solver.is_stochastic:
        return None
    bar = tqdm(settings.seeds, desc="exact solutions", unit="seed", disable=not settings.progress)
    return [
        ode_solution(
            bench,
            samples=settings.samples,
            seed=seed,
            steps=settings.reference_steps,
            folder=settings.work,
        )
        for seed in bar
    ]


# ---------------------------------------------------------------------------- checks


def _checked(
    settings: Settings,
    known: Known,
    blocks: Mapping[float, Sequence[Block]],
    before: Mapping[str, bool],
) -> dict[str, bool]:
    """Return what was verified before, and what can be verified on the samples."""
    of_seeds = zip(*blocks.values(), strict=True)
    plain = [[block[PLAIN.label].latents for block in of_seed] for of_seed in of_seeds]
    repeats = all(torch.equal(first, other) for first, *others in plain for other in others)
    disjoint = not set(known.calibration.seeds) & set(settings.seeds)
    checks = {**before, TWICE: before[TWICE] and repeats}
    checks["calibration and evaluation seeds are disjoint"] = disjoint
    same = [
        torch.equal(block[label].latents, block[label.removeprefix("dit-")].latents)
        for of_budget in blocks.values()
        for block in of_budget
        for label in block
        if label.startswith("dit-smoothcache") and label.removeprefix("dit-") in block
    ]
    if same:
        checks["dit-smoothcache gives the samples of smoothcache bit for bit"] = all(same)
    return checks
