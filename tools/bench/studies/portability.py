"""What does a plan lose whose calibration was transferred, or whose guidance is changed?

    python -m tools.bench portability

Calibrates the shipped digits model at 50 steps of DDIM, transfers that to other numbers of steps,
plans, and compares with plans from calibrations of these numbers: what they predict, and what they
do to samples of other seeds. Then plans at one guidance scale and samples at others. Writes a
record into benchmarks/.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Schedule,
    cached,
    calibrate,
    plan,
    transfer,
)
from smoothcache_core.cli.sampler import known
from smoothcache_core.metrics import relative_l2
from smoothcache_image import adapter_for, load_pipeline
from smoothcache_image.sampling import Sampler
from torch import Tensor

from tools.bench.options import show
from tools.bench.records import FOLDER, Row, new_record

QUESTION = "What does a plan lose whose calibration was transferred, or whose guidance is changed?"
NOTES = (
    "planned_from: `calibrated` at the number of evaluations and the guidance of the row; "
    "`transferred` from the calibration of other evaluations, or at other_guidance; `other "
    "guidance` with no more ado from the calibration at other_guidance.",
    "predicted_error is the plan's, rel_l2 the mean over samples of the relative L2 distance of "
    "the final latent to the plain run's at the guidance of the row, rel_l2_spread their standard "
    "deviation.",
    "seconds_calibration is the processor time that the calibration took, or the transfer.",
    "told is what the user was told by warnings.",
)
CALIBRATION, EVALUATION = (1000, 1001), (0, 1, 2, 3)
TARGETS: dict[str, tuple[float, ...]] = {"denoiser": (0.5, 0.25), "site": (0.65,)}


@dataclass(frozen=True)
class Bench:
    """The digits model, and how it is sampled."""

    sampler: Sampler
    adapter: PatternAdapter

    def at(self, *, steps: int | None = None, guidance: float | None = None) -> "Bench":
        """Return the bench with other settings."""
        steps = steps or self.sampler.steps
        guidance = guidance or self.sampler.guidance
        return replace(self, sampler=replace(self.sampler, steps=steps, guidance=guidance))

    def calibrated(self) -> tuple[Calibration, float]:
        """Return a calibration, and the seconds of the processor it took."""
        start = time.process_time()
        found = calibrate(known(self.sampler), seeds=CALIBRATION, max_lag=6, progress=False)
        return found, time.process_time() - start

    def transferred(self, calibration: Calibration) -> tuple[Calibration, float]:
        """Return a calibration transferred to the sampler's steps, and the seconds it took."""
        start = time.process_time()
        found = transfer(calibration, known(self.sampler))
        return found, time.process_time() - start

    def latents(self, schedule: Schedule | None) -> tuple[Tensor, str]:
        """Return the final latents of all evaluation seeds, and what the user was told."""
        if schedule is None:
            return torch.cat([self.sampler(seed) for seed in EVALUATION]), ""
        pipe = self.sampler.pipe
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with cached(pipe.transformer, self.adapter, schedule, scheduler=pipe.scheduler):
                found = torch.cat([self.sampler(seed) for seed in EVALUATION])
        return found, "; ".join(dict.fromkeys(str(each.message) for each in told))


def load(steps: int, guidance: float, batch: int) -> Bench:
    """Load the digits model."""
    pipe = load_pipeline("digits", device="cpu", dtype="float32", solver="ddim")
    pipe.set_progress_bar_config(disable=True)
    sampler = Sampler(pipe=pipe, conditions=range(10), steps=steps, guidance=guidance, batch=batch)
    return Bench(sampler, adapter_for(pipe.transformer))


def judged(bench: Bench, calibration: Calibration, plain: Tensor, **facts: object) -> Iterator[Row]:
    """Yield a row for every plan from a calibration."""
    for target, computes in TARGETS.items():
        for compute in computes:
            schedule = plan(calibration, compute=compute, target=target)
            assert schedule.prediction is not None
            latents, told = bench.latents(schedule)
            error = relative_l2(plain, latents)
            yield {
                "modality": "image",
                "model": "digits-dit",
                "full_size": False,
                "solver": "ddim",
                "evaluations": bench.sampler.steps,
                "guidance": bench.sampler.guidance,
                "policy": target,
                "ours": True,
                "compute": schedule.compute_fraction(),
                **facts,
                "predicted_error": schedule.prediction.error,
                "rel_l2": float(error.mean()),
                "rel_l2_spread": float(error.std()),
                "told": told,
            }


def of_steps(start: Bench, known: Calibration, numbers: Sequence[int]) -> Iterator[Row]:
    """Yield rows of other numbers of steps."""
    for steps in numbers:
        bench = start.at(steps=steps)
        plain, _ = bench.latents(None)
        for name, (made, seconds) in {
            "calibrated": bench.calibrated(),
            "transferred": bench.transferred(known),
        }.items():
            facts = {"planned_from": name, "seconds_calibration": seconds}
            yield from judged(bench, made, plain, **facts)


def of_guidance(start: Bench, known: Calibration, scales: Sequence[float]) -> Iterator[Row]:
    """Yield rows of other guidance scales."""
    for guidance in scales:
        bench = start.at(guidance=guidance)
        plain, _ = bench.latents(None)
        own, seconds = bench.calibrated()
        facts = {"planned_from": "calibrated", "seconds_calibration": seconds}
        yield from judged(bench, own, plain, **facts)
        other = {"other_guidance": start.sampler.guidance}
        yield from judged(bench, known, plain, planned_from="other guidance", **other)
        if guidance > 1:  # at 1 there is one conditioning pass, and nothing to transfer from two
            made, seconds = bench.transferred(known)
            facts = {"planned_from": "transferred", "seconds_calibration": seconds}
            yield from judged(bench, made, plain, **facts, **other)


def main(
    steps: Annotated[int, typer.Option(help="Steps of the calibration.")] = 50,
    other_steps: Annotated[list[int] | None, typer.Option(help="To transfer to.")] = None,
    guidance: Annotated[float, typer.Option(help="Scale of the calibration.")] = 1.5,
    other_guidance: Annotated[list[float] | None, typer.Option(help="To sample at.")] = None,
    batch: Annotated[int, typer.Option(help="Samples of the batch.")] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Measure, and write a record."""
    torch.set_num_threads(threads)
    bench = load(steps, guidance, batch)
    known, _ = bench.calibrated()
    rows = [
        *of_steps(bench, known, other_steps or (25, 40, 75)),
        *of_guidance(bench, known, other_guidance or (1.0, 2.0, 4.0)),
    ]
    record = new_record(
        what="transfer",
        modality="image",
        question=QUESTION,
        packages=("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        seeds={"calibration": CALIBRATION, "evaluation": EVALUATION},
        settings={"steps_of_the_calibration": steps, "batch": batch},
        rows=rows,
        notes=NOTES,
    )
    show(record, output)
