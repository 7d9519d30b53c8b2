"""What a command samples: a model, its settings, and the seeds. Loads nothing heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.destinations import slug
from smoothcache_core.errors import CommandError

if TYPE_CHECKING:
    from smoothcache_core.routing import CleanLatents
    from smoothcache_core.sampling import ConditionedSampler


_SHIPPED_BATCH = 10  # of shipped models, small ones of ten classes each


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """What to sample: a model, its settings, and how many samples from which seed on.

    Every field is an option of the commands, described by its annotation. A modality has a
    subclass with what else its models can be told; it gives `model`, `steps` and `guidance`
    annotations that describe them too.

    Attributes:
        model: What to load.
        steps: Steps of the solver, if given.
        guidance: Strength of guidance, if given.
        device: Device to load it onto.
        dtype: Data type of its weights.
        adapter: What is known about its denoiser: `"auto"`, `"structure"`, `"whole"`, or a name.
        labels: Classes, for class-conditional models; None for all.
        prompts: Prompts, for text-conditional models.
        samples: Samples in all.
        batch: Samples of one run; None is up to 10 for a shipped model, else 1.
        seed: Seed of the first run.

    Raises:
        CommandError: The batch does not divide the samples.
    """

    SHIPPED: ClassVar[Collection[str]]
    """Names of the small models that come with the package; the first is that of the demo."""
    STEPS: ClassVar[int]
    """Steps of the solver by default."""
    WRITTEN: ClassVar[Collection[str]] = ()
    """Fields that say how samples are written: options of the commands that write some."""

    model: str
    steps: int | None = None
    guidance: float | None = None
    device: opt.Device = "auto"
    dtype: opt.DtypeOption = "auto"
    adapter: opt.AdapterOption = "auto"
    labels: opt.Labels = None
    prompts: opt.Prompts = ()
    samples: opt.Samples = 1
    batch: opt.Batch = None
    seed: opt.Seed = 0

    def __post_init__(self) -> None:
        if self.batch is not None and self.samples % self.batch:
            raise CommandError(
                f"--batch {self.batch} must divide --samples {self.samples} into whole runs"
            )

    @property
    def shipped(self) -> bool:
        """Whether the model comes with the package."""
        return self.model in self.SHIPPED

    @property
    def run_samples(self) -> int:
        """Samples of one run."""
        if self.batch is not None:
            return self.batch
        return largest_divisor(self.samples, _SHIPPED_BATCH if self.shipped else 1)

    @property
    def seeds(self) -> range:
        """Seeds of the runs."""
        return range(self.seed, self.seed + self.samples // self.run_samples)

    @property
    def tag(self) -> str:
        """What is sampled, as a part of a file name: model, solver if given, and steps."""
        solver = self.chosen_solver
        parts = [
            slug(self.model),
            *([slug(solver)] if solver else []),
            str(self.steps or self.STEPS),
        ]
        return "-".join(parts)

    @property
    def chosen_solver(self) -> str:
        """The solver that was asked for; empty for the model's own."""
        return ""

    def steps_for(self, evaluations: int) -> int:
        """Return the steps in which the solver makes so many evaluations, as far as is known."""
        return evaluations

    def clean_latents(self, sampler: ConditionedSampler) -> CleanLatents | None:
        """Return what draws data that the model was trained on; None if none is known.

        Args:
            sampler: What `sampler` gave.
        """
        del sampler
        return None

    @abstractmethod
    def sampler(self, *, steps: int) -> ConditionedSampler:
        """Load the model and return its sampler."""


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return max(n for n in range(1, limit + 1) if number % n == 0)
