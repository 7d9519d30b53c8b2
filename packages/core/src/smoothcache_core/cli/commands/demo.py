"""The command `demo`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Self

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand, varied, with_source
from smoothcache_core.cli.modality import Modality


@dataclass(frozen=True, kw_only=True)
class Demo(SamplingCommand):
    """Calibrate, plan, fit, sample and judge the small {shown} model that comes with this package.

    Compares the best plan with SmoothCache's rule at equal compute. Takes {duration} on a CPU.
    Writes {units}, schedules and a report.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.demo.run:run_demo"

    output: Annotated[
        Path, opt.output_option("Folder for everything the demo writes.", folder=True)
    ] = Path("demo-output")
    force: opt.Force = False
    samples: Annotated[
        PositiveInt, Parameter(group=opt.SAMPLES, help="Samples to judge with, at least 1.")
    ]
    calibration_samples: Annotated[
        PositiveInt, Parameter(group=opt.SAMPLES, help="Samples to calibrate with, at least 1.")
    ]
    computes: Annotated[
        tuple[float, ...],
        Parameter(
            name="--compute",
            group=opt.PLAN,
            help="Compute fraction to plan for, in (0, 1]: MACs over those of the plain model. "
            "Repeatable.",
        ),
    ]
    max_lag: opt.MeasuredLag = 12
    threads: Annotated[
        NonNegativeInt,
        Parameter(group=opt.MODEL, help="CPU threads; 0 tries what is fastest now."),
    ] = 0

    @classmethod
    def of(cls, modality: Modality) -> type[Self]:
        """Return the demo of a modality, with the options and the defaults that it has there."""
        shown = modality.demo
        names = ("samples", "calibration_samples", "computes")
        own = varied(cls, defaults={name: getattr(shown, name) for name in names})
        kept = [each.name for each in fields(modality.source)]
        hidden = [name for name in kept if name not in shown.options]
        return with_source(own, varied(modality.source, hidden=hidden))
