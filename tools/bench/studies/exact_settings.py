"""Settings of the study of distances to the exact solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from cyclopts import Parameter

from tools.bench.bench import CALIBRATION_SEED
from tools.bench.studies.quality_settings import WORK

BUDGETS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
EXACT_WORK = WORK.with_name("smoothcache-bench-exact")
FITTED = (1.0, 0.5, 0.25)
"""Budgets at which plans are also fitted, which costs more runs than all else of a budget."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and how it is sampled.

    Attributes:
        model: Name of a shipped model, or a folder.
        solver: Name of its solver.
        steps: Steps of the plain run.
        guidance: Strength of classifier-free guidance.
    """

    model: str
    solver: str
    steps: int
    guidance: float

    @classmethod
    def of(cls, words: str) -> Self:
        """Return the case of a line such as `"digits ddim 50 1.5"`.

        Raises:
            ValueError: It is no such line.
        """
        try:
            model, solver, steps, guidance = words.split()
            return cls(model=model, solver=solver, steps=int(steps), guidance=float(guidance))
        except ValueError as error:
            raise ValueError(
                f"a case is a model, a solver, steps and guidance, such as 'digits ddim 50 1.5', "
                f"not {words!r}"
            ) from error

    def __str__(self) -> str:
        """Return it as `of` reads it."""
        return f"{self.model} {self.solver} {self.steps} {self.guidance:g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the study.

    Attributes:
        cases: What is sampled, each as 'model solver steps guidance'.
        budgets: Compute fractions, in (0, 1].
        fitted: Those of them at which plans are fitted, too.
        samples: Samples of every evaluation seed.
        seeds: Evaluation seeds, one batch each.
        calibration_samples: Samples to calibrate with, one batch.
        choosing_samples: Samples of the calibration seed to choose settings of others with.
        reference_steps: Evaluations of the run that stands for the exact solution.
        half: Also calibrate on 8 samples of one half of the classes, and judge on the other half.
        only: Only these policies, by name or as tables show them; plain is always among them.
        pictures: Write pictures of the first case.
        device: cpu or cuda.
        work: Folder of what is kept between runs.
        resume: Go on with what earlier or parallel runs of the same settings and code have
            finished; of which cases does not matter.
        progress: Show progress bars.

    Raises:
        ValueError: A setting is impossible.
    """

    cases: Annotated[Sequence[str], Parameter(name="--case")] = (
        "digits ddim 50 1.5",
        "digits-flow default 30 1.5",
        "digits dpmsolver++ 20 1.5",
        "digits-flow default 50 1.5",
        "digits ddim 50 4",
        "digits-flow default 30 4",
        "digits dpmsolver++ 20 4",
        "digits-flow default 50 4",
    )
    budgets: Annotated[Sequence[float], Parameter(name="--budget")] = BUDGETS
    fitted: Annotated[Sequence[float], Parameter(name="--fitted")] = FITTED
    samples: int = 10
    seeds: Annotated[Sequence[int], Parameter(name="--seed")] = (1000, 2000, 3000)
    calibration_samples: int = 40
    choosing_samples: int = 5
    reference_steps: int = 300
    half: bool = False
    only: Annotated[Sequence[str], Parameter(name="--policy")] = ()
    pictures: bool = True
    device: str = "cpu"
    work: Path = EXACT_WORK
    resume: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        least = {"samples": 2, "calibration_samples": 1, "choosing_samples": 1}
        for name, value in (least | {"reference_steps": 2}).items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
        if not self.budgets or not all(0.0 < budget <= 1.0 for budget in self.budgets):
            raise ValueError(f"budgets are fractions in (0, 1], got {list(self.budgets)}")
        if CALIBRATION_SEED in self.seeds:
            raise ValueError(f"seed {CALIBRATION_SEED} calibrates, so it cannot judge")
        for words in self.cases:
            Case.of(words)


@dataclass(frozen=True, kw_only=True)
class AudioSettings(Settings):
    """Settings for the spoken-digits model."""

    cases: Annotated[Sequence[str], Parameter(name="--case")] = ("spoken-digits dpmpp-2m 50 2.5",)


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """Settings for the moving-digits model."""

    cases: Annotated[Sequence[str], Parameter(name="--case")] = ("moving-digits default 30 2",)
    samples: int = 5
    calibration_samples: int = 12
    choosing_samples: int = 3
    reference_steps: int = 200
