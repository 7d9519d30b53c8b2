"""Settings of the quality benchmark, and the folder of what runs of them have finished."""

import functools
import hashlib
import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import torch
from cyclopts import Parameter

from tools.bench.bench import CALIBRATION_SEED
from tools.bench.records import REPOSITORY, versions

BUDGETS = (0.7, 0.5, 0.35, 0.25, 0.15)
_PACKAGES = (
    "torch",
    "diffusers",
    "stable-audio-tools",
    "k-diffusion",
    "dit-smoothcache",
    "cache-dit",
)
WORK = Path(tempfile.gettempdir()) / "smoothcache-bench-quality"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one benchmark.

    Attributes:
        model: Name of a shipped model.
        solver: Name of the solver.
        steps: Steps of the plain run.
        budgets: Compute fractions, in (0, 1).
        samples: Samples of every evaluation seed.
        seeds: Evaluation seeds, one batch each.
        calibration_samples: Samples to calibrate and to choose settings with, one batch.
        reference_steps: Evaluations of the run that stands for the exact solution.
        repeats: Timed runs of every policy from every seed.
        device: cpu or cuda.
        only: Only these policies; the plain run is always among them.
        work: Folder of what is kept between runs.
        resume: Go on with what an earlier run of the same settings and code has finished.
        progress: Show progress bars.

    Raises:
        ValueError: A setting is impossible.
    """

    model: str = "digits"
    solver: str = "default"
    steps: int = 50
    budgets: Annotated[Sequence[float], Parameter(name="--budget")] = BUDGETS
    samples: int = 32
    seeds: Annotated[Sequence[int], Parameter(name="--seed")] = (1000, 2000, 3000)
    calibration_samples: int = 16
    reference_steps: int = 1000
    repeats: int = 1
    device: str = "cpu"
    only: Annotated[Sequence[str], Parameter(name="--policy")] = ()
    work: Path = WORK
    resume: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        least = {"steps": 4, "samples": 2, "calibration_samples": 1, "reference_steps": 1}
        for name, value in (least | {"repeats": 1}).items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
        if not self.budgets or not all(0.0 < budget < 1.0 for budget in self.budgets):
            raise ValueError(f"budgets are fractions in (0, 1), got {list(self.budgets)}")
        for name in ("budgets", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be distinct, got {list(values)}")
        if CALIBRATION_SEED in self.seeds:
            raise ValueError(f"seed {CALIBRATION_SEED} calibrates, so it cannot judge")


@dataclass(frozen=True, kw_only=True)
class AudioSettings(Settings):
    """Settings of the benchmark of the spoken-digits model.

    Attributes:
        model: spoken-digits, or a folder.
    """

    model: str = "spoken-digits"
    solver: str = "dpmpp-3m-sde"
    steps: int = 100
    samples: int = 20
    calibration_samples: int = 10
    reference_steps: int = 400


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """Settings of the benchmark of the moving-digits model.

    Attributes:
        model: moving-digits, or a folder.
    """

    model: str = "moving-digits"
    steps: int = 30
    budgets: Annotated[Sequence[float], Parameter(name="--budget")] = (0.7, 0.5, 0.35, 0.25)
    samples: int = 20
    calibration_samples: int = 10


class Resumed(Protocol):
    """Settings of a study that goes on where it was."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def work(self) -> Path:
        """Folder of what is kept between runs."""
        ...

    @property
    def resume(self) -> bool:
        """Whether to go on with it."""
        ...


def work_folder(
    settings: Resumed,
    modality: str = "image",
    *,
    besides: Collection[str] = ("budgets", "only"),
) -> Path:
    """Return the folder of what is finished, named by modality, settings, versions and code.

    Without `resume` it is emptied.

    Args:
        settings: Settings of the study.
        modality: Name of the modality.
        besides: Names of settings that what is kept does not depend on.
    """
    given = asdict(settings)
    for name in ("work", "resume", "progress", *besides):
        del given[name]
    known = [modality, given, versions(*_PACKAGES), torch.get_num_threads(), _code(modality)]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    folder = settings.work / digest
    if folder.exists() and not settings.resume:
        for path in folder.iterdir():
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def _code(modality: str) -> str:
    """Return a digest of the code and the weights that results depend on, as first seen."""
    packages = [REPOSITORY / "packages" / name / "src" for name in ("core", modality)]
    files = [path for folder in packages for path in folder.rglob("*") if path.is_file()]
    files += (REPOSITORY / "tools" / "bench").rglob("*.py")
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.suffix in (".py", ".json", ".safetensors")):
        digest.update(str(path.relative_to(REPOSITORY)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
