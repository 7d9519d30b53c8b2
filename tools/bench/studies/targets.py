"""Which targets and fills hold where the solver adds noise at every step?

    python -m tools.bench targets

Samples the shipped spoken-digits model by stochastic solvers, plain and with sites, blocks or whole
evaluations skipped and filled in every way, at equal compute, with the same noise in all runs.
Writes a record into benchmarks/.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from smoothcache_core import Adapter, PatternAdapter, Schedule, SitePattern
from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import write_atomically
from smoothcache_core.fills import linear, reuse, taylor
from smoothcache_core.metrics import relative_l2
from smoothcache_core.sources import plan_evaluations, plan_sites
from torch import Tensor
from tqdm import tqdm

from tools.bench.baselines.ours import scheduled
from tools.bench.baselines.whole import even
from tools.bench.bench import CALIBRATION_SEED, Bench, calibrated, load_bench
from tools.bench.models.audio import PACKAGES, audio
from tools.bench.policies import plain
from tools.bench.records import Record, Row, grid, new_record

QUESTION = "Which targets and fills hold where the solver adds noise at every step?"
NOTES = (
    "The plain and the cached run follow the same Brownian path, which comes from the seed.",
    "sites are self_attn, cross_attn and ff of every block, blocks the deltas of whole blocks; "
    "both are planned for the least predicted error, each with its fill. Of evaluations, reuse and "
    "taylor-1 are at evenly spaced places and have no prediction; linear fills are planned. input "
    "adds the latent of the skipped evaluation to a fill, anchor also that of the evaluation "
    "computed last.",
    "predicted_error is what the schedule promises, rel_l2 the relative L2 distance of the final "
    "latents from the plain run's, mean over all samples; rel_l2_spread is the standard deviation "
    "of the means of the seeds. mel_l1 (natural logarithms; 0.115 is 1 dB) compares waveforms, "
    "accuracy is the share of samples in which the classifier hears the digit asked for.",
)
BLOCKS = PatternAdapter(
    name="blocks of stable-audio-tools",
    patterns=(SitePattern("transformer.layers.*", "block", target="delta", inputs=("x",)),),
    latent="x",
    timestep="t",
)
SEEDS = (1000, 2000, 3000)
TARGETS = ("sites", "blocks", "evaluations")
COMPUTES = (0.5, 0.25)
SOLVERS = ("dpmpp-3m-sde", "dpmpp-2m-sde")
RULES = (reuse(), taylor(1), linear(1), linear(2), linear(3))
PLANNED: Mapping[str, Mapping[str, Any]] = {
    **{
        f"linear-{terms}": {"terms": terms, "use_input": False, "use_anchor": False}
        for terms in (1, 2, 3)
    },
    "linear-3, input": {"use_anchor": False},
    "linear-3, input, anchor": {"use_anchor": True},
}
"""Fills of whole evaluations that are planned."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the study.

    Attributes:
        model: Name of the model, or its folder.
        steps: Steps of the solvers.
        samples: Samples of every evaluation seed.
        seeds: Evaluation seeds.
        calibration_samples: Samples to calibrate with, one batch.
        computes: Compute fractions.
        solvers: Names of stochastic solvers.
        progress: Show progress bars.
    """

    model: str = "spoken-digits"
    steps: int = 100
    samples: int = 10
    seeds: Annotated[Sequence[int], Parameter(name="--seed")] = SEEDS
    calibration_samples: int = 10
    computes: Annotated[Sequence[float], Parameter(name="--compute")] = COMPUTES
    solvers: Annotated[Sequence[str], Parameter(name="--solver")] = SOLVERS
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to skip evaluations.

    Attributes:
        target: What is skipped.
        fill: How it is filled.
        budget: Compute that was asked for.
        adapter: Where the sites are.
        schedule: The schedule, or why there is none.
    """

    target: str
    fill: str
    budget: float
    adapter: Adapter
    schedule: Schedule | ScheduleError


@torch.no_grad()
def measure(settings: Settings) -> tuple[list[Row], list[Row]]:
    """Return the rows, best first for each solver and budget, and what could not be planned."""
    rows: list[Row] = []
    refused: list[Row] = []
    for solver in settings.solvers:
        bench = load_bench(audio(), settings.model, solver, steps=settings.steps, device="cpu")
        cases = list(_cases(settings, bench))
        judge = _Judge(settings, bench)
        found = [_row(solver, judge, case) for case in _shown(settings, cases)]
        refused += [_refused(solver, case) for case in cases if not _planned(case)]
        rows += [judge.plain_row(solver), *sorted(found, key=_order)]
    return rows, refused


def _order(row: Row) -> tuple[float, float]:
    return -row["budget"], row["rel_l2"]


def _planned(case: Case) -> bool:
    return isinstance(case.schedule, Schedule)


def _shown(settings: Settings, cases: Sequence[Case]) -> "tqdm[Case]":
    todo = [case for case in cases if _planned(case)]
    return tqdm(todo, desc="sampling", unit="case", disable=not settings.progress)


# ---------------------------------------------------------------------------- schedules


def _cases(settings: Settings, bench: Bench) -> Iterator[Case]:
    """Yield all cases of a solver."""
    own: Adapter = bench.sampler.adapter
    measure = partial(
        calibrated, bench, samples=settings.calibration_samples, progress=settings.progress
    )
    calibrations = {
        target: (adapter, measure(adapter=adapter))
        for target, adapter in {"sites": own, "blocks": BLOCKS}.items()
    }
    for budget in settings.computes:
        for target, (adapter, calibration) in calibrations.items():
            for rule in RULES:
                made = _or_error(plan_sites, calibration, compute=budget, fill=rule)
                yield _case(target, rule.name, budget, adapter, made)
        _, calibration = calibrations["sites"]
        for rule in (reuse(), taylor(1)):
            schedule = even(calibration, budget, rule)
            yield _case("evaluations", rule.name, budget, own, schedule)
        for name, chosen in PLANNED.items():
            made = _or_error(plan_evaluations, calibration, compute=budget, **chosen)
            yield _case("evaluations", name, budget, own, made)


def _case(
    target: str, fill: str, budget: float, adapter: Adapter, schedule: Schedule | ScheduleError
) -> Case:
    return Case(target=target, fill=fill, budget=budget, adapter=adapter, schedule=schedule)


def _or_error(make: Any, *args: Any, **kwargs: Any) -> Schedule | ScheduleError:
    try:
        return make(*args, **kwargs)
    except ScheduleError as error:
        return error


# ---------------------------------------------------------------------------- rows


class _Judge:
    """Compares samples with those of the plain runs."""

    def __init__(self, settings: Settings, bench: Bench) -> None:
        self._settings = settings
        self._bench = bench
        self._plain = [self._sampled(None, seed) for seed in settings.seeds]
        self._all_plain = torch.cat(self._plain)
        sampler = bench.of_batch(settings.samples)
        self._judged = bench.modality.judged(sampler, settings.seeds)
        self.compute = 1.0

    def _sampled(self, case: Case | None, seed: int) -> Tensor:
        attach = plain
        if case is not None:
            assert isinstance(case.schedule, Schedule)
            attach = scheduled(case.schedule, adapter=case.adapter)
        run = self._bench.run(attach, samples=self._settings.samples, seed=seed)
        self.compute = self._bench.compute(run)
        return run.latents

    def plain_row(self, solver: str) -> Row:
        """Return the row of the plain run."""
        accuracy = self._judged.summaries["accuracy"](self._all_plain)
        return {"solver": solver, "budget": 1.0, "target": "plain", "accuracy": accuracy}

    def row(self, case: Case) -> dict[str, float]:
        """Sample by a case, and compare."""
        samples = [self._sampled(case, seed) for seed in self._settings.seeds]
        pairs = zip(self._plain, samples, strict=True)
        means = [float(relative_l2(one, other).mean()) for one, other in pairs]
        every = torch.cat(samples)
        return {
            "rel_l2": statistics.fmean(means),
            "rel_l2_spread": statistics.stdev(means) if len(means) > 1 else 0.0,
            "mel_l1": float(self._judged.metrics["mel_l1"](self._all_plain, every).mean()),
            "accuracy": self._judged.summaries["accuracy"](every),
        }


def _row(solver: str, judge: _Judge, case: Case) -> dict[str, Any]:
    assert isinstance(case.schedule, Schedule)
    prediction = case.schedule.prediction
    row: dict[str, Any] = {
        "solver": solver,
        "budget": case.budget,
        "target": case.target,
        "fill": case.fill,
    }
    if prediction is not None:
        row["predicted_error"] = prediction.error
    return row | judge.row(case) | {"compute": judge.compute}


def _refused(solver: str, case: Case) -> Row:
    reason = str(case.schedule).splitlines()[0]
    return {
        "solver": solver,
        "target": case.target,
        "fill": case.fill,
        "budget": case.budget,
        "reason": reason,
    }


def record(settings: Settings) -> Record:
    """Measure, and return the record."""
    return to_record(settings, *measure(settings))


def to_record(settings: Settings, rows: Sequence[Row], refused: Sequence[Row]) -> Record:
    """Return the record."""
    return new_record(
        what="sde",
        modality="audio",
        question=QUESTION,
        packages=PACKAGES,
        seeds={"calibration": [CALIBRATION_SEED], "evaluation": list(settings.seeds)},
        settings={
            "model": settings.model,
            "evaluations": settings.steps,
            "samples": f"{settings.samples} of each evaluation seed",
            "calibration samples": settings.calibration_samples,
            "dtype": "float32",
        },
        rows=rows,
        refused=refused,
        notes=NOTES,
    )


# ---------------------------------------------------------------------------- what is shown


def save(record: Record, folder: Path) -> Path:
    """Write the record, and its table with the errors over budgets first."""
    path = record.save(folder)
    before, after = record.to_markdown().split(f"{record.question}\n", 1)
    parts = [
        record.question,
        "Relative L2 distance of the final sample from the plain run's, by compute; what the "
        "schedule promised is in brackets:",
        pivot(record.rows),
        "All numbers:",
    ]
    text = before + "\n\n".join(parts) + "\n" + after
    write_atomically(path.with_suffix(".md"), text.encode())
    return path


def pivot(rows: Sequence[Row]) -> str:
    """Return the errors as a Markdown table of targets and fills, by solver and budget."""
    found = [row for row in rows if row["target"] != "plain"]
    columns = list(dict.fromkeys((row["solver"], row["budget"]) for row in found))
    lines = list(dict.fromkeys((row["target"], row["fill"]) for row in found))
    lines.sort(key=lambda line: TARGETS.index(line[0]))
    cells = {(row["target"], row["fill"], row["solver"], row["budget"]): row for row in found}
    best = {
        column: min(row["rel_l2"] for row in found if (row["solver"], row["budget"]) == column)
        for column in columns
    }
    titles = ["target", "fill", *(f"{solver}, {budget:g}" for solver, budget in columns)]
    shown = [
        [*line, *(_error(cells.get((*line, *column)), best[column]) for column in columns)]
        for line in lines
    ]
    return grid(titles, shown, right=range(2, len(titles)))


def _error(row: Row | None, best: float) -> str:
    if row is None:
        return "-"
    text = f"{row['rel_l2']:.2g}"
    text = f"**{text}**" if row["rel_l2"] == best else text
    return f"{text} ({row['predicted_error']:.2g})" if "predicted_error" in row else text
