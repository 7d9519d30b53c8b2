"""The command `calibrate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class Calibrate(SamplingCommand):
    """Measure how much every part of a model changes during a run, and what errors would do.

    Samples as usual; then perturbs some runs, to learn how sensitive the final sample is. A few
    samples are enough; the result holds for this model, solver and number of steps.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.calibrating:calibrate_to_file"

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"samples": 10}

    output: Annotated[
        Path | None,
        opt.output_option(
            "File for what is measured. It is saved after every run, and continued if it is there "
            "already and of the same sampler. Default: calibration-MODEL-STEPS.safetensors.",
            file=True,
        ),
    ] = None
    force: Annotated[bool, Parameter(group=opt.FILES, help="Start anew if the file exists.")] = (
        False
    )
    sensitivity: Annotated[
        NonNegativeInt,
        Parameter(
            group=opt.MEASURE,
            help="Runs used to measure sensitivities, at least 0: how errors change the final "
            "sample. Each costs about 3 extra runs, and up to 6 x (8 per kind of site + 1) extra "
            "evaluations. Planning by predicted error needs at least 1; the published rules "
            "need 0.",
        ),
    ] = 2
    verify: Annotated[
        bool,
        Parameter(
            group=opt.MEASURE,
            help="Run a few plans at the end and compare their errors with those foretold, so that "
            "predictions hold for this model. Costs about 4 plain runs; --verify=false leaves it "
            "out.",
        ),
    ] = True
    sites: Annotated[
        tuple[Literal["parts", "blocks", "spans"], ...],
        Parameter(
            group=opt.MEASURE,
            help="What is measured, and can be planned beside whole evaluations: 'parts', such as "
            "attention and feed forward; 'blocks', kept as the difference that each makes; 'spans' "
            "of blocks that are skipped together. Coarser ones keep less and err more. Repeatable; "
            "each takes another plain run per seed.",
        ),
    ] = ("parts",)
    reference: Annotated[
        Literal["plain", "exact"],
        Parameter(
            group=opt.MEASURE,
            help="What samples shall come near to: the plain run; or also the exact solution that "
            "its solver comes near to, for plan --toward exact. That costs about 13 more plain "
            "runs for each.",
        ),
    ] = "plain"
    max_lag: opt.MeasuredLag = 12
    references: Annotated[
        Literal["device", "cpu"],
        Parameter(
            group=opt.MEASURE,
            help="Where earlier outputs are kept for comparison: on the model's device, or on the "
            "CPU, which is slower and takes no memory of the device.",
        ),
    ] = "device"
