"""What a command samples: a model, its settings, and the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcache_image._errors import PipelineError
from smoothcache_image._loading import SHIPPED, Dtype, Solver, load_pipeline
from smoothcache_image._sampling import Sampler, choose_conditions

DIGITS_GUIDANCE = 1.5
"""Guidance that the shipped models look best with."""

DEFAULT_STEPS = 50

_DIGITS_BATCH = 10


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to sample: a model, its settings, and how many samples from which seed on.

    Attributes:
        model: See `load_pipeline`.
        device: See `load_pipeline`.
        dtype: See `load_pipeline`.
        solver: See `load_pipeline`.
        steps: Steps of the solver, if given.
        guidance: Strength of guidance; None is 1.5 for a shipped model, else the model's own.
        size: Height and width in pixels; None is the model's own.
        labels: See `choose_conditions`.
        prompts: See `choose_conditions`.
        samples: Samples in all.
        batch: Samples of one run; None is up to 10 for a shipped model, else 1.
        seed: Seed of the first run.

    Raises:
        PipelineError: The batch does not divide the samples.
    """

    model: str
    device: str
    dtype: Dtype
    solver: Solver
    steps: int | None
    guidance: float | None
    size: int | None
    labels: str | None
    prompts: Sequence[str]
    samples: int
    batch: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.batch is not None and self.samples % self.batch:
            raise PipelineError(
                f"a batch of {self.batch} does not divide {self.samples} samples into whole runs"
            )

    @property
    def run_samples(self) -> int:
        """Samples of one run."""
        if self.batch is not None:
            return self.batch
        limit = _DIGITS_BATCH if self.model in SHIPPED else 1
        return largest_divisor(self.samples, limit)

    @property
    def seeds(self) -> range:
        """Seeds of the runs."""
        return range(self.seed, self.seed + self.samples // self.run_samples)

    def sampler(self, *, steps: int) -> Sampler:
        """Load the model and return its sampler."""
        pipe = load_pipeline(self.model, device=self.device, dtype=self.dtype, solver=self.solver)
        pipe.set_progress_bar_config(desc="steps", leave=False, disable=None)
        own = DIGITS_GUIDANCE if self.model in SHIPPED else None
        return Sampler(
            pipe=pipe,
            conditions=choose_conditions(pipe, labels=self.labels, prompts=self.prompts),
            steps=steps,
            guidance=own if self.guidance is None else self.guidance,
            batch=self.run_samples,
            size=self.size,
        )


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return max(n for n in range(1, limit + 1) if number % n == 0)


def check_steps(sampler: Sampler, evaluations: int, file: Path) -> None:
    """Refuse a wrong number of steps where steps and evaluations are the same thing."""
    scheduler = sampler.pipe.scheduler
    if getattr(scheduler, "order", 1) == 1 and sampler.steps != evaluations:
        raise PipelineError(
            f"{str(file)!r} is for {evaluations} evaluations, but {type(scheduler).__name__} makes "
            f"{sampler.steps} in {sampler.steps} steps; set the steps to {evaluations}"
        )
