"""The options that all sampling scripts have, and what is refused before a model is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from smoothcache_core import Schedule, SmoothCacheError
from smoothcache_core.cli.app import warnings_in_one_line
from smoothcache_core.cli.shared import is_shared, opened
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output

AT_LEAST_ONE = validators.Number(gte=1)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """How to sample; a script adds what to sample.

    Attributes:
        schedule: A schedule file, a shared folder, or a repository.
        speedup: Speed-up by MACs to choose a shared schedule by, or to plan a new one for.
        runs: Runs to calibrate with.
        steps: Steps of the solver.
        guidance: Strength of guidance.
        seed: Seed of the noise.
        model: What to load in place of what was published.
        small: Whether to try all of it with the small model that comes with the package.
        compare: Whether to sample plain as well.
        device: Torch device.
        output: File to write.

    Raises:
        CommandError: Options do not go together.
    """

    schedule: Annotated[
        Path | None,
        Parameter(
            help="Schedule: a file, a shared folder, or a repository of the model hub "
            "('user/name'). Without it everything is computed."
        ),
    ] = None
    speedup: Annotated[
        float | None,
        Parameter(
            validator=validators.Number(gt=1),
            help="Speed-up by MACs: the one to choose from a shared folder or repository. If "
            "--schedule is a new file, calibrate first, plan for it, and write the file.",
        ),
    ] = None
    runs: Annotated[
        int, Parameter(validator=AT_LEAST_ONE, help="Runs to calibrate with, if it is done.")
    ] = 4
    steps: Annotated[
        int | None,
        Parameter(
            validator=AT_LEAST_ONE,
            help="Steps of the solver. Default: those of the schedule, else the model's.",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Parameter(
            validator=validators.Number(gte=0.0),
            help="Strength of guidance; 1 is none. Default: the model's.",
        ),
    ] = None
    seed: Annotated[
        int, Parameter(validator=validators.Number(gte=0), help="Seed of the noise.")
    ] = 0
    model: Annotated[
        str | None,
        Parameter(help="Folder, or name on the model hub. Default: what was published."),
    ] = None
    small: Annotated[
        bool,
        Parameter(
            help="A dry run: the small trained model that comes with the package, on the CPU in "
            "seconds, nothing downloaded."
        ),
    ] = False
    compare: Annotated[
        bool, Parameter(help="Sample plain as well, from the same noise, and tell both times.")
    ] = False
    device: Annotated[str, Parameter(help="Torch device; 'auto' is CUDA if any.")] = "auto"
    output: Annotated[
        Path | None, Parameter(help="File to write. Default: named after what it is.")
    ] = None

    def __post_init__(self) -> None:
        if self.speedup is not None and self.schedule is None:
            raise CommandError("--speedup needs --schedule: a new file, or a shared one")
        if self.compare and self.schedule is None:
            raise CommandError("--compare sets a schedule beside plain: name one with --schedule")
        if self.small and self.model is not None:
            raise CommandError("--small samples the model that comes with the package, not --model")
        if self.plans and self.schedule is not None:
            if self.schedule.exists():
                raise CommandError(
                    f"{str(self.schedule)!r} is there already: leave out --speedup to sample by it"
                )
            check_output(self.schedule)

    @property
    def plans(self) -> bool:
        """Whether a schedule is to be made and written."""
        return (
            self.schedule is not None and self.speedup is not None and not is_shared(self.schedule)
        )

    def loaded_schedule(self) -> Schedule | None:
        """Return the schedule to sample by, if there is one already.

        Raises:
            SmoothCacheError: It cannot be read, or none is so fast.
        """
        if self.schedule is None or self.plans:
            return None
        return opened(self.schedule, self.speedup)


def run_script(name: str, main: Callable[..., None], words: list[str] | None = None) -> Any:
    """Run a script with the words of its command line; what is wrong ends it in one line.

    Args:
        name: Name of the script.
        main: What it does; its parameters are the options.
        words: Words of the command line; those of the process if not given.
    """
    app = cyclopts.App(
        name=f"python -m tools.sample.{name}",
        default_parameter=Parameter(negative=()),
        help_flags=["--help"],
        version_flags=[],
        result_action="return_value",
    )
    app.default(main)
    try:
        with warnings_in_one_line(name):
            return app(words)
    except SmoothCacheError as error:
        raise SystemExit(f"{name}: {error}") from error
