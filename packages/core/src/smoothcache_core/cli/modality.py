"""What a modality package gives to the command line. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from smoothcache_core import Adapter, Report, ReportRow, Scheduler
    from smoothcache_core.cli.source import Source


class Sampler(Protocol):
    """Samples one batch per seed. A frozen dataclass, so that copies can be changed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Steps of the solver."""
        ...

    @property
    def batch(self) -> int:
        """Samples of one call."""
        ...

    @property
    def denoiser(self) -> nn.Module:
        """The module that the solver calls."""
        ...

    @property
    def adapter(self) -> Adapter:
        """Where its sites are."""
        ...

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler, if there is one; see `smoothcache_core.cached`."""
        ...

    @property
    def solver_name(self) -> str | None:
        """Name of the solver, if there is no scheduler to name it."""
        ...

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the conditioning passes; see `smoothcache_core.cached`."""
        ...

    @property
    def evaluations(self) -> int | None:
        """Evaluations of one run, if that is known before."""
        ...

    def __call__(self, seed: int) -> Tensor:
        """Return what the solver ends with for `seed`, (batch, ...), float32."""
        ...

    def conditions_of(self, seed: int) -> Sequence[Any]:
        """Return what the samples of `seed` are asked to show."""
        ...

    def label(self, condition: Any) -> str:
        """Return the name of a condition, short enough for a caption or a file name."""
        ...

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser."""
        ...

    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What becomes of the samples of some runs.

    Attributes:
        metrics: See `smoothcache_core.evaluate`.
        summaries: See `smoothcache_core.evaluate`.
        about: What the numbers say, for the report.
        columns: Titles of further columns of the table, and their cells.
        shown: Samples of every policy that `pictures` and `write` need.
        pictures: Makes pictures from the report, which holds samples, and a title, by file name;
            the first is the one to look at.
        write: Writes what else there is of a report into a folder.
    """

    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    summaries: Mapping[str, Callable[[Tensor], float]]
    about: str
    columns: Sequence[tuple[str, Callable[[ReportRow], str]]]
    shown: int
    pictures: Callable[[Report, str], Mapping[str, Figure]]
    write: Callable[[Report, Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Demo:
    """How a demo shows itself.

    Attributes:
        opening: What is sampled by what.
        title: What is sampled, the first word of a title.
        legend: What the columns of the modality mean.
        files: What it writes, by name within its folder, and what that is.
        options: Fields of the source that can be set.
        samples: Samples to judge with, unless told otherwise.
        calibration_samples: Samples to calibrate with, unless told otherwise.
        computes: Compute fractions to plan for, unless told otherwise.
        batch: Most samples of one run that judges.
        duration: How long it takes on a CPU.
    """

    opening: str
    title: str
    legend: str
    files: Mapping[str, str]
    options: Sequence[str] = ("steps", "solver", "guidance", "seed")
    samples: int
    calibration_samples: int = 10
    computes: tuple[float, ...] = (0.5, 0.35, 0.25)
    batch: int = 50
    duration: str = "a minute or two"


@dataclass(frozen=True, kw_only=True)
class Modality:
    """What the command line of a modality is about.

    Attributes:
        command: Name of the program.
        models: What its models are, for the help.
        units: What samples are called, such as `"pictures"`.
        source: What it samples.
        demo: How its demo shows itself.
        judging: Returns what becomes of the samples of some seeds; the last argument is whether
            they are those of a shipped model.
        save: Writes the samples of some seeds into a folder, and returns the files.
        examples: Command lines for the help, by command, without the name of the program.
    """

    command: str
    models: str
    units: str
    source: type[Source]
    demo: Demo
    judging: Callable[[Any, Sequence[int], bool], Judging]
    save: Callable[[Any, Sequence[int], Sequence[Tensor], Path], list[Path]]
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
