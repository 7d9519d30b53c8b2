"""The command `sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from cyclopts import Parameter

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Sample(SamplingCommand):
    """Sample {units}, plain or by a schedule, and tell what was reused and how long it took."""

    WORK: ClassVar[str] = "smoothcache_core.cli.sampling:sample_to_folder"
    WRITES: ClassVar[bool] = True

    schedule: Annotated[
        Path | None,
        Parameter(
            group=opt.FILES,
            help=f"Schedule to sample by{opt.SHARED}. Without it everything is computed.",
        ),
    ] = None
    speedup: opt.Speedup = None
    output: Annotated[
        Path | None,
        opt.output_option(
            "Folder for the samples. Default: samples, or samples-SCHEDULE.", folder=True
        ),
    ] = None
    force: opt.Force = False
