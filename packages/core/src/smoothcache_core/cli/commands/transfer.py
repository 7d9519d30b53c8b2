"""The command `transfer`."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Transfer(SamplingCommand):
    """Carry a calibration over to another number of steps, without evaluating the model.

    An estimate, for the same model, solver and guidance: give them as they were calibrated.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.transferring:transfer_to_file"

    HIDDEN: ClassVar[Collection[str]] = ("steps", "samples", "batch", "seed")
    """It makes runs of one seed, at its own steps."""

    calibration: opt.CalibrationFile = field(kw_only=False)
    steps: Annotated[
        PositiveInt,
        Parameter(
            group=opt.MODEL,
            help="Steps of the solver to transfer to: at least 4 evaluations, at most twice as "
            "many as were calibrated.",
        ),
    ]
    output: Annotated[
        Path | None,
        opt.output_option(
            "File for the transferred calibration; not the one that it is transferred from. "
            "Default: CALIBRATION-to-STEPS.safetensors, beside the calibration.",
            file=True,
        ),
    ] = None
    force: opt.Force = False
