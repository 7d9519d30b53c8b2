"""The command `evaluate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Parameter

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Evaluate(SamplingCommand):
    """Compare schedules with the plain model: speed, and what becomes of the same samples.

    Shows the errors that were predicted beside those measured. The seeds must not be those of
    the calibration, nor those that a schedule was fitted with.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.evaluating:evaluate_to_folder"
    WRITES: ClassVar[bool] = True

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"samples": 10, "seed": 1000}

    schedules: Annotated[
        tuple[Path, ...],
        Parameter(
            group=opt.ARGUMENTS, help=f"Schedules to compare with plain, one or more{opt.SHARED}."
        ),
    ] = field(kw_only=False)
    speedup: opt.Speedup = None
    calibration: Annotated[
        Path | None,
        opt.file_option(
            "File written by calibrate, to draw its errors and what can be planned from it."
        ),
    ] = None
    exact: Annotated[
        Literal["auto", "yes", "no"],
        Parameter(
            group=opt.MEASURE,
            help="Also measure distances from the exact solution, that of the plain run among "
            "them; costs about 13 more plain runs each. auto: where a schedule aims at it.",
        ),
    ] = "auto"
    peers: Annotated[
        tuple[str, ...],
        Parameter(
            group=opt.FILES,
            metavar="FILE",
            help="Record of a benchmark (JSON) whose other methods are drawn beside these "
            "schedules. Repeatable; quote a pattern: 'benchmarks/quality-*.json'.",
        ),
    ] = ()
    output: Annotated[
        Path, opt.output_option("Folder for the report and its pictures.", folder=True)
    ] = Path("evaluation")
    force: opt.Force = False
