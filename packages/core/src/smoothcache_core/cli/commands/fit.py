"""The command `fit`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Fit(SamplingCommand):
    """Fit a schedule to what its cached runs really do, and measure the error that it makes.

    The seeds may be those of the calibration. They are written down, and evaluate, which starts
    from seed 1000, refuses to judge with them.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.fitting:fit_to_file"

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"samples": 8}

    schedule: Annotated[
        Path, Parameter(group=opt.ARGUMENTS, help=f"Schedule to fit{opt.SHARED}.")
    ] = field(kw_only=False)
    speedup: opt.Speedup = None
    output: Annotated[
        Path | None,
        opt.output_option(
            "File for the fitted schedule. Default: SCHEDULE-fitted.json, beside the schedule.",
            file=True,
        ),
    ] = None
    force: opt.Force = False
    terms: Annotated[
        int | None,
        Parameter(
            group=opt.PLAN,
            validator=Number(gte=1, lte=3),
            help="Most computed outputs that a fill combines, 1 to 3. If not given, 3 for whole "
            "evaluations; parts of the model keep as many as the schedule has, and plain reuse "
            "stays.",
        ),
    ] = None
    channels: Annotated[
        bool,
        Parameter(
            group=opt.PLAN,
            help="Scale and shift reused outputs of parts channel by channel, as Block Caching "
            "does. The numbers are written into a file beside the schedule.",
        ),
    ] = False
    toward: Annotated[
        Literal["plain", "exact"] | None,
        Parameter(
            group=opt.PLAN,
            help="What samples shall come near to: the plain run, or the exact solution that its "
            "solver comes near to, which takes 12 plain runs more for each run. Then computed "
            "outputs are corrected too. Default: what the schedule was planned for.",
        ),
    ] = None
    refine: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.PLAN,
            metavar="TRIALS",
            help="Also move what is computed, if that lowers the error: schedules to try, at least "
            "1. Each takes as long as a cached run of all samples.",
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        opt.file_option("With --refine, file that keeps what was tried, and is continued from."),
    ] = None
