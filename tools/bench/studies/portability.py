"""What does a plan lose elsewhere: at other steps, another guidance, another length of the sound?

    python -m tools.bench portability image
    python -m tools.bench portability audio

Of the shipped digits model a calibration at 50 steps of DDIM is transferred to other numbers of
steps, and plans from it are compared with plans from calibrations of these numbers; then plans at
one guidance scale are used at others. Plans for the shipped spoken-digits model at its own length
are used at other lengths. What counts is what the plans predict, and what they do to samples of
other seeds. Writes a record into benchmarks/.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from smoothcache_core import (
    Calibration,
    Schedule,
    SmoothCacheWarning,
    cached,
    calibrate,
    plan,
    transfer,
)
from smoothcache_core.metrics import relative_l2
from smoothcache_image import load_pipeline
from smoothcache_image.sampling import prompt_sampler
from torch import Tensor
from tqdm import tqdm

from tools.bench.models.audio import audio
from tools.bench.records import Record, Row, new_record

_MAX_LAG = 6  # evaluations: longer reuse is never planned at the compute fractions tried here


# ---------------------------------------------------------------------------- both modalities


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where plans are made or used: a sampler of some steps, guidance or length.

    Attributes:
        sampler: The modality's sampler.
        calibration_seeds: Seeds to calibrate with.
        seeds: Seeds to judge with.
    """

    sampler: Any
    calibration_seeds: Sequence[int]
    seeds: Sequence[int]

    def at(self, **changes: object) -> "Place":
        """Return the place with other settings of the sampler."""
        return replace(self, sampler=replace(self.sampler, **changes))

    def calibrated(self) -> tuple[Calibration, float]:
        """Return a calibration, and the seconds of the processor it took."""
        start = time.process_time()
        found = calibrate(
            self.sampler, seeds=self.calibration_seeds, max_lag=_MAX_LAG, progress=False
        )
        return found, time.process_time() - start

    def transferred(self, calibration: Calibration) -> tuple[Calibration, float]:
        """Return a calibration transferred to the sampler's steps, and the seconds it took."""
        start = time.process_time()
        found = transfer(calibration, self.sampler)
        return found, time.process_time() - start

    def plain(self) -> Tensor:
        """Return the final latents of all evaluation seeds, (samples, ...)."""
        with self.sampler.around():
            return self._sampled()

    def _sampled(self) -> Tensor:
        return torch.cat([self.sampler(seed) for seed in self.seeds])

    def latents(self, schedule: Schedule) -> tuple[Tensor, str]:
        """Return the same by a schedule, and what the user was told."""
        sampler = self.sampler
        with sampler.around(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", SmoothCacheWarning)
            with cached(sampler.model, sampler.adapter, schedule, scheduler=sampler.scheduler):
                found = self._sampled()
        mine = [each for each in told if issubclass(each.category, SmoothCacheWarning)]
        return found, "; ".join(dict.fromkeys(str(each.message) for each in mine))

    def judged(
        self, calibration: Calibration, plain: Tensor, target: str, compute: float
    ) -> dict[str, Any]:
        """Return what a plan predicts and does here, as columns of a row."""
        schedule = plan(calibration, compute=compute, target=target)
        assert schedule.prediction is not None
        latents, told = self.latents(schedule)
        error = relative_l2(plain, latents)
        return {
            "compute": schedule.compute_fraction(),
            "predicted_error": schedule.prediction.error,
            "rel_l2": float(error.mean()),
            "rel_l2_spread": float(error.std()),
            "told": told,
        }


ERRORS = (
    "predicted_error is the plan's, rel_l2 the mean over samples of the relative L2 distance of "
    "the final latent to that of the plain run at the same place and noise, rel_l2_spread their "
    "standard deviation.",
    "told is what the user was told by warnings.",
)


# ---------------------------------------------------------------------------- steps and guidance

IMAGE_QUESTION = (
    "What does a plan lose whose calibration was transferred, or whose guidance is changed?"
)
IMAGE_NOTES = (
    "planned_from: `calibrated` at the number of evaluations and the guidance of the row; "
    "`transferred` from the calibration of other evaluations, or at other_guidance; `other "
    "guidance` with no more ado from the calibration at other_guidance.",
    *ERRORS,
    "seconds_calibration is the processor time that the calibration took, or the transfer.",
)
IMAGE_TARGETS: dict[str, tuple[float, ...]] = {"denoiser": (0.5, 0.25), "site": (0.65,)}


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Settings on the digits model.

    Attributes:
        steps: Steps of the calibration.
        other_steps: Numbers of steps to transfer to.
        guidance: Scale of the calibration.
        other_guidance: Scales to sample at.
        batch: Samples of the batch.
    """

    steps: int = 50
    other_steps: Sequence[int] = (25, 40, 75)
    guidance: float = 1.5
    other_guidance: Sequence[float] = (1.0, 2.0, 4.0)
    batch: int = 8


def measure_image(settings: ImageSettings) -> Record:
    """Use plans for the digits model at other steps and at other guidance."""
    pipe = load_pipeline("digits", device="cpu", dtype="float32", solver="ddim")
    pipe.set_progress_bar_config(disable=True)
    sampler = prompt_sampler(
        pipe,
        conditions=range(10),
        steps=settings.steps,
        guidance=settings.guidance,
        samples=settings.batch,
    )
    start = Place(sampler=sampler, calibration_seeds=(1000, 1001), seeds=(0, 1, 2, 3))
    origin, _ = start.calibrated()
    return new_record(
        what="transfer",
        modality="image",
        question=IMAGE_QUESTION,
        packages=("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        seeds={"calibration": start.calibration_seeds, "evaluation": start.seeds},
        settings={"steps_of_the_calibration": settings.steps, "batch": settings.batch},
        rows=[
            *_of_steps(start, origin, settings.other_steps),
            *_of_guidance(start, origin, settings.other_guidance),
        ],
        notes=IMAGE_NOTES,
    )


def _of_steps(start: Place, origin: Calibration, numbers: Sequence[int]) -> Iterator[Row]:
    """Yield rows of other numbers of steps."""
    for steps in numbers:
        place = start.at(steps=steps)
        plain = place.plain()
        for name, (made, seconds) in {
            "calibrated": place.calibrated(),
            "transferred": place.transferred(origin),
        }.items():
            facts = {"planned_from": name, "seconds_calibration": seconds}
            yield from _image_rows(place, made, plain, facts)


def _of_guidance(start: Place, origin: Calibration, scales: Sequence[float]) -> Iterator[Row]:
    """Yield rows of other guidance scales."""
    other = {"other_guidance": start.sampler.guidance}
    for guidance in scales:
        place = start.at(guidance=guidance)
        plain = place.plain()
        own, seconds = place.calibrated()
        facts = {"planned_from": "calibrated", "seconds_calibration": seconds}
        yield from _image_rows(place, own, plain, facts)
        yield from _image_rows(place, origin, plain, {"planned_from": "other guidance", **other})
        if guidance > 1:  # at 1 there is one conditioning pass, and nothing to transfer from two
            made, seconds = place.transferred(origin)
            facts = {"planned_from": "transferred", "seconds_calibration": seconds}
            yield from _image_rows(place, made, plain, facts | other)


def _image_rows(place: Place, calibration: Calibration, plain: Tensor, facts: Row) -> Iterator[Row]:
    """Yield a row for every plan from a calibration."""
    for target, computes in IMAGE_TARGETS.items():
        for compute in computes:
            judged = place.judged(calibration, plain, target, compute)
            yield {
                "modality": "image",
                "model": "digits-dit",
                "full_size": False,
                "solver": "ddim",
                "evaluations": place.sampler.steps,
                "guidance": place.sampler.guidance,
                "policy": target,
                "ours": True,
                "compute": judged.pop("compute"),
                **facts,
                **judged,
            }


# ---------------------------------------------------------------------------- length

AUDIO_QUESTION = "What does a plan lose at another length than that of its calibration?"
AUDIO_NOTES = (
    "planned_from: `own length`, or `other length`: that of the calibration, see above.",
    *ERRORS,
    "The model has seen no other length than 0.8 s in training. What is compared is what caching "
    "changes, not how good the sounds are.",
)
AUDIO_TARGETS: tuple[str, ...] = ("denoiser", "site")


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Settings on the spoken-digits model.

    Attributes:
        model: spoken-digits, or a folder.
        solver: As in prompt_sampler.
        steps: Steps of the solver.
        seconds: Length of the calibration.
        lengths: Lengths to sample at, in seconds.
        compute: Compute fraction of the plans, in (0, 1).
        batch: Samples of one run.
        progress: Show a progress bar.
    """

    model: str = "spoken-digits"
    solver: str = "dpmpp-2m"
    steps: int = 50
    seconds: float = 0.8
    lengths: Annotated[Sequence[float], Parameter(name="--length")] = (0.4, 0.8, 1.2, 1.6)
    compute: float = 0.5
    batch: int = 10
    progress: bool = True


def measure_audio(settings: AudioSettings) -> Record:
    """Use plans for the spoken-digits model at other lengths of the sound."""
    modality = audio()
    loaded = modality.load(settings.model, settings.solver, settings.steps, "cpu")
    sampler = modality.owned(loaded, settings.batch)
    start = Place(sampler=sampler, calibration_seeds=(1000,), seeds=(0, 1, 2))
    origin, _ = start.at(seconds=settings.seconds).calibrated()
    lengths = tqdm(settings.lengths, unit="length", disable=not settings.progress)
    return new_record(
        what="length",
        modality="audio",
        question=AUDIO_QUESTION,
        packages=("torch", "stable-audio-tools", "smoothcache-core", "smoothcache-audio"),
        seeds={"calibration": start.calibration_seeds, "evaluation": start.seeds},
        settings={
            "model": settings.model,
            "solver": settings.solver,
            "evaluations": settings.steps,
            "length_of_the_calibration": settings.seconds,
            "batch": settings.batch,
        },
        rows=[
            row
            for length in lengths
            for row in _audio_rows(start.at(seconds=length), origin, settings.compute)
        ],
        notes=AUDIO_NOTES,
    )


def _audio_rows(place: Place, origin: Calibration, compute: float) -> Iterator[Row]:
    """Yield rows of one length."""
    plain = place.plain()
    own, _ = place.calibrated()
    for target in AUDIO_TARGETS:
        for name, calibration in {"own length": own, "other length": origin}.items():
            judged = place.judged(calibration, plain, target, compute)
            yield {
                "length_seconds": place.sampler.seconds,
                "policy": target,
                "compute": judged.pop("compute"),
                "planned_from": name,
                **judged,
            }
