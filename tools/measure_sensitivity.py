"""How well does the cheap estimate of sensitivities rank, and what does it cost?

    python tools/measure_sensitivity.py

Calibration perturbs few evaluations and few blocks of each kind, and interpolates. This script
measures all of them on the shipped digits model, for one batch, compares the ranking (Spearman) of
all pairs of site and evaluation, and plans with either, judging both plans by the full measurement.
Writes a record into benchmarks/.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from _options import show
from _records import FOLDER, Row, new_record
from scipy.stats import rankdata
from smoothcache_core import Calibration, calibrate, planned
from smoothcache_core._calibrate import PROBES, places_of
from smoothcache_core._dynamics import measure_dynamics
from smoothcache_core._exact import joined
from smoothcache_core._influence import BLOCKS, measure_influence
from smoothcache_core._trajectory import Stage
from smoothcache_core.sources._planned import with_prediction
from smoothcache_image import adapter_for, load_pipeline
from smoothcache_image._sampling import Sampler

QUESTION = (
    "Does the cheap estimate of sensitivities rank as the full measurement, and at what cost?"
)
NOTES = (
    "rank_sites and rank_evaluations are Spearman's rank correlations with the full measurement, "
    "of influence times effect over all sites and evaluations, and of the effect over evaluations.",
    "calls counts denoiser calls besides those of the plain run.",
    "excess is the effect of the plan made with the estimate over that of the plan made with the "
    "full measurement, both judged by the full measurement; 1 is as good.",
)


@dataclass
class Counter:
    """Counts the denoiser's calls."""

    calls: int = 0

    def __call__(self, *arguments: object) -> None:
        self.calls += 1


def measure(steps: int, batch: int, solver: str) -> list[Row]:
    """Return one row for each estimate."""
    pipe = load_pipeline("digits", solver=solver)  # pyright: ignore[reportArgumentType]
    pipe.set_progress_bar_config(disable=True)
    sampler = Sampler(pipe=pipe, conditions=range(10), steps=steps, guidance=1.5, batch=batch)
    adapter = adapter_for(pipe.transformer)
    plain = calibrate(
        pipe.transformer, adapter, sampler, seeds=[0], samples_per_run=batch, max_lag=12,
        sensitivity=0, scheduler=pipe.scheduler,
    )  # fmt: skip
    stage = Stage(pipe.transformer, adapter, sampler, (), pipe.scheduler)
    every = len(plain.sites)
    settings = {
        "full": (list(range(1, steps)), every),
        f"{PROBES} evaluations, {BLOCKS} blocks a kind": (places_of(steps), BLOCKS),
        "6 evaluations, 3 blocks a kind": (places_of(steps), 3),
        "3 evaluations, 8 blocks a kind": (places_of(steps, 3), 8),
    }
    found = {}
    for name, (places, blocks) in settings.items():
        counter = Counter()
        handle = pipe.transformer.pos_embed.register_forward_hook(counter)
        found[name] = add_sensitivity(plain, stage, places, blocks, batch), counter
        handle.remove()
    return [row(name, made, count, found["full"][0]) for name, (made, count) in found.items()]


def add_sensitivity(
    plain: Calibration, stage: Stage, places: list[int], blocks: int, batch: int
) -> Calibration:
    """Return the calibration with sensitivities measured at `places`, on so many blocks a kind."""
    run = stage.record(0, None)
    dynamics = measure_dynamics(stage, run, batch, probes=places, conditional=None)
    assert plain.products is not None
    products = joined(plain.products) / plain.samples
    influence = measure_influence(
        stage, run, dynamics.response, plain.sites, products, places, blocks=blocks
    )
    return replace(plain, dynamics=dynamics, influence=influence)


def row(name: str, made: Calibration, counter: Counter, full: Calibration) -> Row:
    """Compare one estimate with the full measurement."""
    plain_calls = made.evaluations
    values = {"estimate": name, "calls": counter.calls - plain_calls}
    values["rank_sites"] = spearman(effects(made).ravel(), effects(full).ravel())
    values["rank_evaluations"] = spearman(of_evaluations(made), of_evaluations(full))
    for compute in (0.5, 0.25):
        ours, best = (
            with_prediction(full, planned(c, compute=compute)).prediction for c in (made, full)
        )
        assert ours is not None
        assert best is not None
        values[f"excess_{compute}"] = ours.error / best.error
    return values


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the ranks of two series, (n,) each."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def effects(calibration: Calibration) -> np.ndarray:
    """Return influence times effect, (sites, E - 1)."""
    assert calibration.influence is not None
    values = calibration.influence.values(calibration.sites)
    return (values * of_evaluations_all(calibration))[:, 1:]


def of_evaluations_all(calibration: Calibration) -> np.ndarray:
    """Return the effect of every evaluation's output, (E,)."""
    assert calibration.dynamics is not None
    return calibration.dynamics.effect()


def of_evaluations(calibration: Calibration) -> np.ndarray:
    """Return the effect of every evaluation's output but the first, (E - 1,)."""
    return of_evaluations_all(calibration)[1:]


def main(
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = 50,
    batch: Annotated[int, typer.Option(help="Samples of the batch.")] = 8,
    solver: Annotated[str, typer.Option(help="ddim or dpmsolver++.")] = "ddim",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Measure, and write a record."""
    torch.set_num_threads(threads)
    rows = measure(steps, batch, solver)
    record = new_record(
        what="sensitivity",
        modality="image",
        question=QUESTION,
        packages=("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        seeds={"calibration": [0]},
        settings={"model": "digits-dit", "solver": solver, "evaluations": steps, "batch": batch},
        rows=rows,
        notes=NOTES,
    )
    show(record, output)


if __name__ == "__main__":
    typer.run(main)
