"""What does a plan lose at another length of the sound, or elsewhere: another resolution?

    python -m tools.bench length

Calibrates the shipped spoken-digits model at its own length, plans, and samples sounds of other
lengths by these plans and by plans from calibrations at those lengths. Writes a record into
benchmarks/.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from smoothcache_audio import Sampler
from smoothcache_core import Calibration, Schedule, SmoothCacheWarning, cached, calibrate, plan
from smoothcache_core.cli.sampler import known
from smoothcache_core.metrics import relative_l2
from torch import Tensor
from tqdm import tqdm

from tools.bench.models.audio import audio
from tools.bench.options import show
from tools.bench.records import FOLDER, Row, new_record

QUESTION = "What does a plan lose at another length than that of its calibration?"
NOTES = (
    "planned_from: `own length`, or `other length`: that of the calibration, see above.",
    "rel_l2 is the mean over samples of the relative L2 distance of the final latent to the plain "
    "run's of the same length and noise, rel_l2_spread their standard deviation.",
    "told is what the user was told by warnings.",
    "The model has seen no other length than 0.8 s in training. What is compared is what caching "
    "changes, not how good the sounds are.",
)
CALIBRATION, EVALUATION = (1000,), (0, 1, 2)
LENGTHS = (0.4, 0.8, 1.2, 1.6)
TARGETS: tuple[str, ...] = ("denoiser", "site")


def calibrated(sampler: Sampler) -> Calibration:
    """Calibrate at the length of a sampler."""
    return calibrate(known(sampler), seeds=CALIBRATION, max_lag=6, progress=False)


def latents(sampler: Sampler, schedule: Schedule | None) -> tuple[Tensor, str]:
    """Return the final latents of all evaluation seeds, and what the user was told."""
    with sampler.around(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SmoothCacheWarning)
        if schedule is None:
            return torch.cat([sampler(seed) for seed in EVALUATION]), ""
        with cached(sampler.denoiser, sampler.adapter, schedule):
            found = torch.cat([sampler(seed) for seed in EVALUATION])
    mine = [each for each in told if issubclass(each.category, SmoothCacheWarning)]
    return found, "; ".join(dict.fromkeys(str(each.message) for each in mine))


def rows_of(sampler: Sampler, known: Calibration, compute: float) -> Iterator[Row]:
    """Yield rows of one length and compute fraction."""
    plain, _ = latents(sampler, None)
    sources = {"own length": calibrated(sampler), "other length": known}
    for target in TARGETS:
        for name, calibration in sources.items():
            schedule = plan(calibration, compute=compute, target=target)
            assert schedule.prediction is not None
            found, told = latents(sampler, schedule)
            error = relative_l2(plain, found)
            yield {
                "length_seconds": sampler.seconds,
                "policy": target,
                "compute": schedule.compute_fraction(),
                "planned_from": name,
                "predicted_error": schedule.prediction.error,
                "rel_l2": float(error.mean()),
                "rel_l2_spread": float(error.std()),
                "told": told,
            }


def main(
    solver: Annotated[str, typer.Option(help="As in prompt_sampler.")] = "dpmpp-2m",
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = 50,
    seconds: Annotated[float, typer.Option(help="Length of the calibration.")] = 0.8,
    compute: Annotated[float, typer.Option(help="Compute fraction of the plans.")] = 0.5,
    batch: Annotated[int, typer.Option(help="Samples of one run.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Measure, and write a record."""
    torch.set_num_threads(threads)
    modality = audio()
    own = modality.owned(modality.load("spoken-digits", solver, steps, "cpu"), batch)
    known = calibrated(replace(own, seconds=seconds))
    record = new_record(
        what="length",
        modality="audio",
        question=QUESTION,
        packages=("torch", "stable-audio-tools", "smoothcache-core", "smoothcache-audio"),
        seeds={"calibration": CALIBRATION, "evaluation": EVALUATION},
        settings={
            "model": "spoken-digits",
            "solver": solver,
            "evaluations": steps,
            "length_of_the_calibration": seconds,
            "batch": batch,
        },
        rows=[
            row
            for length in tqdm(LENGTHS, unit="length")
            for row in rows_of(replace(own, seconds=length), known, compute)
        ],
        notes=NOTES,
    )
    show(record, output)
