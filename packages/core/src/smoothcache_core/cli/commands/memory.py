"""The command `memory`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from cyclopts import Parameter

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Memory(SamplingCommand):
    """Say what is kept in memory at the size of {units} that is asked for, without sampling any.

    The model is asked for shapes alone, so any size is answered in seconds, on any machine that
    holds its weights. Blocks and spans are looked at where a calibration or schedule is of them.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.remembering:show_memory"

    calibration: Annotated[
        Path | None,
        opt.file_option("File written by calibrate, at any size, whose sites are looked at."),
    ] = None
    schedules: Annotated[
        tuple[Path, ...],
        Parameter(
            name="--schedule",
            group=opt.FILES,
            help="A schedule: what it would keep at this size. Repeatable.",
        ),
    ] = ()
    output: Annotated[
        Path | None,
        opt.output_option("File for what was found, for plan --at. Default: none.", file=True),
    ] = None
    force: opt.Force = False
