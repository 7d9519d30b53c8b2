"""How well does the cheap estimate of sensitivities rank, and what does it cost?

    python -m tools.bench sensitivity

Calibration perturbs few evaluations and few blocks of each kind, and interpolates. This script
measures all of them on the shipped digits model, for one batch, compares the ranking (Spearman) of
all pairs of site and evaluation, and plans with either, judging both plans by the full measurement.
The full measurement is a product of two factors itself, so some pairs are tried: one site reuses
its output at one evaluation, and the error of the final sample is compared with what every estimate
predicts. Writes a record into benchmarks/.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from smoothcache_core import Calibration, Schedule, cached, calibrate
from smoothcache_core.calibrating.run_sensitivity import measure_dynamics
from smoothcache_core.calibrating.run_statistics import PROBES, places_of
from smoothcache_core.calibrating.site_sensitivity import BLOCKS, measure_influence
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sampling.recording import record as record_run
from smoothcache_core.sources import plan_sites
from smoothcache_core.sources.prediction import with_prediction
from smoothcache_image import load_pipeline
from smoothcache_image.sampling import PromptSampler, prompt_sampler
from torch import nn
from tqdm import tqdm

from tools.bench.records import Record, Row, new_record

QUESTION = (
    "Does the cheap estimate of sensitivities rank as the full measurement, and at what cost?"
)
NOTES = (
    "rank_sites and rank_evaluations are Spearman's rank correlations with the full measurement, "
    "of influence times effect over all sites and evaluations, and of the effect over evaluations.",
    "calls counts denoiser calls besides those of the plain run.",
    "excess is the effect of the plan made with the estimate over that of the plan made with the "
    "full measurement, both judged by the full measurement; 1 is as good.",
    "rank_true is Spearman's rank correlation with the truth: the relative L2 error of the final "
    "sample where one site reuses its output at one evaluation, all else computed, for pairs of "
    "site and evaluation drawn at random, in the run that was calibrated. What is ranked is the "
    "error that a planner predicts of such a schedule.",
    "true_ratio is the median of the true error over the predicted one.",
    "relative errors is the published error of reuse, which knows nothing of sensitivities; it "
    "predicts no error of the final sample. true errors is the truth, whose calls are those that "
    "these pairs cost.",
)
CALIBRATION_SEED, PAIRS_SEED = 0, 0
Pair = tuple[int, int]
"""Index of a site, and an evaluation from 1 on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the study.

    Attributes:
        steps: Steps of the solver.
        batch: Samples of the batch.
        solver: ddim or dpmsolver++.
        pairs: Pairs of site and evaluation to try.
    """

    steps: int = 50
    batch: int = 8
    solver: str = "ddim"
    pairs: int = 50


@dataclass
class Counter:
    """Counts the denoiser's calls."""

    calls: int = 0

    def __call__(self, *arguments: object) -> None:
        self.calls += 1


@contextmanager
def counted(denoiser: nn.Module) -> Generator[Counter]:
    """Count the calls of the shipped denoiser, at its first layer."""
    counter = Counter()
    handle = denoiser.get_submodule("pos_embed").register_forward_hook(counter)
    try:
        yield counter
    finally:
        handle.remove()


def measure(steps: int, batch: int, solver: str, pairs: int) -> list[Row]:
    """Return one row for each estimate, and one for the truth."""
    pipe = load_pipeline("digits", solver=solver)  # pyright: ignore[reportArgumentType]
    pipe.set_progress_bar_config(disable=True)
    sampler = prompt_sampler(pipe, conditions=range(10), steps=steps, guidance=1.5, samples=batch)
    plain = calibrate(sampler, seeds=[CALIBRATION_SEED], max_lag=12, sensitivity=0)
    found = {}
    for name, (places, blocks) in settings_of(steps, len(plain.sites)).items():
        with counted(pipe.transformer) as counter:
            found[name] = add_sensitivity(plain, sampler, places, blocks), counter
    tried = drawn(plain, pairs)
    with counted(pipe.transformer) as counter:
        truth = true_errors(sampler, [reusing(plain, pair) for pair in tried])
    full = found["full"][0]
    rows: list[Row] = [
        row(name, made, count, full) | against(truth, predicted(made, tried))
        for name, (made, count) in found.items()
    ]
    return [*rows, row_of_relative(plain, tried, truth), row_of_truth(plain, counter)]


def settings_of(steps: int, every: int) -> dict[str, tuple[list[int], int]]:
    """Return by names of estimates where they measure, and on how many blocks of a kind."""
    return {
        "full": (list(range(1, steps)), every),
        f"{PROBES} evaluations, {BLOCKS} blocks a kind": (places_of(steps), BLOCKS),
        "6 evaluations, 3 blocks a kind": (places_of(steps), 3),
        "3 evaluations, 8 blocks a kind": (places_of(steps, 3), 8),
    }


def add_sensitivity(
    plain: Calibration, sampler: PromptSampler, places: list[int], blocks: int
) -> Calibration:
    """Return the calibration with sensitivities measured at `places`, on so many blocks a kind."""
    taken = sampler
    run = record_run(taken, CALIBRATION_SEED)
    dynamics = measure_dynamics(taken, run, taken.samples, probes=places, conditional=None)
    assert plain.products is not None
    products = joined(plain.products) / plain.samples
    influence = measure_influence(
        taken, run, dynamics.response, plain.sites, products, places, blocks=blocks
    )
    return replace(plain, dynamics=dynamics, influence=influence)


def row(name: str, made: Calibration, counter: Counter, full: Calibration) -> dict[str, object]:
    """Compare one estimate with the full measurement."""
    plain_calls = made.evaluations
    values: dict[str, object] = {"estimate": name, "calls": counter.calls - plain_calls}
    values["rank_sites"] = spearman(effects(made).ravel(), effects(full).ravel())
    values["rank_evaluations"] = spearman(of_evaluations(made), of_evaluations(full))
    for compute in (0.5, 0.25):
        ours, best = (
            with_prediction(full, plan_sites(c, compute=compute)).prediction for c in (made, full)
        )
        assert ours is not None
        assert best is not None
        values[f"excess_{compute}"] = ours.error / best.error
    return values


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the ranks of two series, (n,) each."""
    result: Any = spearmanr(one, other)
    return float(result.statistic)


def effects(calibration: Calibration) -> np.ndarray:
    """Return influence times effect, (sites, E - 1)."""
    assert calibration.influence is not None
    values = calibration.influence.values(calibration.sites)
    return (values * of_evaluations_all(calibration))[:, 1:]


def of_evaluations_all(calibration: Calibration) -> np.ndarray:
    """Return the effect of every evaluation's output, (E,)."""
    assert calibration.dynamics is not None
    return calibration.dynamics.final_sensitivity()


def of_evaluations(calibration: Calibration) -> np.ndarray:
    """Return the effect of every evaluation's output but the first, (E - 1,)."""
    return of_evaluations_all(calibration)[1:]


# ---------------------------------------------------------------------------- the truth


def drawn(calibration: Calibration, count: int) -> list[Pair]:
    """Return so many pairs of site and evaluation at random, or all if there are no more."""
    sites, others = len(calibration.sites), calibration.evaluations - 1
    numbers = np.random.default_rng(PAIRS_SEED).permutation(sites * others)[:count].tolist()
    return [(number // others, number % others + 1) for number in numbers]


def reusing(calibration: Calibration, pair: Pair) -> Schedule:
    """Return the schedule by which one site reuses its output at one evaluation."""
    index, skipped = pair
    row = tuple(int(i != skipped) for i in range(calibration.evaluations))
    return Schedule(
        evaluations=calibration.evaluations,
        rows={calibration.sites[index].path: row},
        cost=calibration.cost,
    )


def true_errors(sampler: PromptSampler, schedules: Sequence[Schedule]) -> np.ndarray:
    """Return the relative L2 error of all final samples of the calibrated run, (schedules,)."""
    plain, errors = sampler(CALIBRATION_SEED).double(), []
    for schedule in tqdm(schedules, unit="pair"):
        with cached(sampler.model, sampler.adapter, schedule, scheduler=sampler.scheduler):
            found = sampler(CALIBRATION_SEED).double()
        errors.append(float((found - plain).norm() / plain.norm()))
    return np.array(errors)


def predicted(calibration: Calibration, pairs: Sequence[Pair]) -> np.ndarray:
    """Return the error that a calibration predicts of every pair, (pairs,)."""
    errors = []
    for pair in pairs:
        prediction = with_prediction(calibration, reusing(calibration, pair)).prediction
        assert prediction is not None
        errors.append(prediction.error)
    return np.array(errors)


def against(truth: np.ndarray, errors: np.ndarray) -> dict[str, object]:
    """Return what a row says of predicted errors beside the true ones, (pairs,) each."""
    return {
        "rank_true": spearman(errors, truth),
        "true_ratio": float(np.median(truth / errors)),
    }


def row_of_relative(calibration: Calibration, pairs: Sequence[Pair], truth: np.ndarray) -> Row:
    """Return the row of the published error of reuse, which weighs all sites alike."""
    means = calibration.mean().mean(axis=1)[:, 0]
    errors = np.array([means[index, skipped - 1] for index, skipped in pairs])
    return {"estimate": "relative errors", "calls": 0, "rank_true": spearman(errors, truth)}


def row_of_truth(calibration: Calibration, counter: Counter) -> Row:
    """Return the row of the true errors."""
    calls = counter.calls - calibration.evaluations
    return {"estimate": "true errors", "calls": calls, "rank_true": 1.0, "true_ratio": 1.0}


def record(settings: Settings) -> Record:
    """Measure, and return the record."""
    return new_record(
        what="sensitivity",
        modality="image",
        question=QUESTION,
        packages=("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        seeds={"calibration": [CALIBRATION_SEED], "pairs": [PAIRS_SEED]},
        settings={
            "model": "digits-dit",
            "solver": settings.solver,
            "evaluations": settings.steps,
            "batch": settings.batch,
            "pairs": settings.pairs,
        },
        rows=measure(settings.steps, settings.batch, settings.solver, settings.pairs),
        notes=NOTES,
    )
