"""The command `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from cyclopts import Parameter, Token
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import Command
from smoothcache_core.cli.known import fill_rules, one_of, targets
from smoothcache_core.cli.sizes import parse_bytes
from smoothcache_core.errors import CommandError

if TYPE_CHECKING:
    from smoothcache_core.fills import FillRule
    from smoothcache_core.planning import Limits
    from smoothcache_core.schedule import Storage


def _bytes(_: Any, tokens: Sequence[Token]) -> int:
    return parse_bytes(tokens[0].value)


@dataclass(frozen=True, kw_only=True)
class Plan(Command):
    """Turn a calibration into schedules: what to compute and what to skip. Needs no model.

    Give --compute, --speedup or --error, each as often as you like, and get the best schedule for
    each; or --front to see them all. Or a published rule: --alpha, --interval, --rule smooth.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.planning:plan_to_files"

    calibration: opt.CalibrationFile = field(kw_only=False)

    # ------------------------------------------------------------------------ what to plan

    computes: Annotated[
        tuple[float, ...],
        Parameter(
            name="--compute",
            group=opt.PLAN,
            help="Compute fraction to keep to, in (0, 1]: MACs over those of the plain model. "
            "Repeatable.",
        ),
    ] = ()
    speedups: Annotated[
        tuple[float, ...],
        Parameter(
            name="--speedup",
            group=opt.PLAN,
            help="Speed-up to reach if time were MACs alone, at least 1. Repeatable.",
        ),
    ] = ()
    errors: Annotated[
        tuple[float, ...],
        Parameter(
            name="--error",
            group=opt.PLAN,
            help="Relative L2 error of the final sample to keep to, above 0, by the least compute. "
            "Repeatable. With --front, what the choice keeps to; 0.01 if not given.",
        ),
    ] = ()
    target: Annotated[
        str,
        Parameter(
            group=opt.PLAN,
            metavar="NAME",
            validator=one_of(targets),
            completer=targets,
            help="What to skip: whole evaluations ('denoiser'); these and unconditional passes "
            "('guidance'); parts of the model, planned by 'site', 'kind' or 'evaluation', by "
            "SmoothCache's rule ('smooth'), at regular intervals ('interval') or by accumulated "
            "change ('accumulated', Block Caching); whole blocks ('block') or spans of them "
            "('span'), where they were measured. 'auto' takes what is predicted to be best of what "
            "fits --max-bytes.",
        ),
    ] = "auto"
    fill: Annotated[
        str | None,
        Parameter(
            group=opt.PLAN,
            metavar="RULE",
            validator=one_of(fill_rules),
            completer=fill_rules,
            help="How skipped outputs of parts of the model are made: 'reuse' of the last computed "
            "one, calibrated combinations of up to three ('linear-1' to 'linear-3'), or Taylor "
            "series ('taylor-0' to 'taylor-2'). Default: linear-3.",
        ),
    ] = None
    toward: Annotated[
        Literal["plain", "exact"],
        Parameter(
            group=opt.PLAN,
            help="What samples shall come near to: the plain run, or the exact solution that its "
            "solver comes near to, for calibrations made with --reference exact. Then --error is "
            "the distance to that, and --compute 1 is nearer than the plain run at its cost.",
        ),
    ] = "plain"
    at: Annotated[
        Path | None,
        opt.file_option(
            "File written by memory: plan for the size that it was asked for, not for that of the "
            "calibration."
        ),
    ] = None
    front: Annotated[
        bool,
        Parameter(
            group=opt.PLAN,
            help="Compare all targets at many compute fractions, as a table and front.png, and "
            "choose.",
        ),
    ] = False

    # ------------------------------------------------------------------------ limits

    first: Annotated[
        PositiveInt,
        Parameter(
            group=opt.LIMITS, help="How many of the first evaluations are computed, at least 1."
        ),
    ] = 1
    pinned: Annotated[
        tuple[int, ...],
        Parameter(
            name="--pin",
            group=opt.LIMITS,
            validator=Number(gte=0),
            help="An evaluation that is computed in any case, counted from 0. Repeatable.",
        ),
    ] = ()
    max_lag: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.LIMITS,
            help="Most evaluations skipped in a row, at least 1. Default: 3 for the published "
            "rules, half of what was measured for parts of the model, any for whole evaluations.",
        ),
    ] = None
    max_bytes: Annotated[
        int | None,
        Parameter(
            converter=_bytes,
            metavar="SIZE",
            group=opt.LIMITS,
            help="Most memory for cached outputs: '2GB', '500MiB', or bytes. Default: any.",
        ),
    ] = None
    keep_on: Annotated[
        Literal["device", "cpu"],
        Parameter(
            group=opt.LIMITS,
            help="Where outputs are kept: on the model's device, or in the memory of the CPU, "
            "copied beside the computation. --max-bytes counts them in either.",
        ),
    ] = "device"
    keep_as: Annotated[
        Literal["float16", "bfloat16", "float8_e4m3fn"] | None,
        Parameter(
            group=opt.LIMITS,
            help="Data type that kept outputs are rounded to. What that adds to the error is in "
            "the predicted one. Default: as they were computed.",
        ),
    ] = None
    max_rows: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.LIMITS,
            help="Most different rows of parts, at least 1; each is a graph of a compiled model. "
            "Default: any number.",
        ),
    ] = None

    # ------------------------------------------------------------------------ published rules

    rule: Annotated[
        Literal["best", "smooth"],
        Parameter(
            group=opt.PUBLISHED,
            help="How to plan for --compute and --speedup: 'best' by predicted errors, 'smooth' by "
            "SmoothCache's threshold.",
        ),
    ] = "best"
    alphas: Annotated[
        tuple[float, ...],
        Parameter(
            name="--alpha",
            group=opt.PUBLISHED,
            help="SmoothCache's threshold: largest relative error of what is reused, at least 0; "
            "its authors' schedules have 0.08, 0.18 and 0.35. Repeatable.",
        ),
    ] = ()
    intervals: Annotated[
        tuple[int, ...],
        Parameter(
            name="--interval",
            group=opt.PUBLISHED,
            help="Compute at every n-th evaluation, n at least 1, whatever was measured (FORA). "
            "Repeatable.",
        ),
    ] = ()
    per: Annotated[
        Literal["kind", "site"],
        Parameter(
            group=opt.PUBLISHED,
            help="SmoothCache's threshold for all sites of a kind together, or for each by itself.",
        ),
    ] = "kind"
    strict: Annotated[
        bool,
        Parameter(
            group=opt.PUBLISHED,
            help="All shorter reuses must be within the threshold too, not only the longest.",
        ),
    ] = False

    # ------------------------------------------------------------------------ files

    output: Annotated[
        Path | None,
        opt.output_option(
            "Folder for the schedules, or a file ending in .json for a single one. Default: "
            "schedules/MODEL-STEPS, as the calibration is named."
        ),
    ] = None
    force: opt.Force = False
    v1: Annotated[
        bool,
        Parameter(
            group=opt.FILES,
            help="Also write SmoothCache's original JSON, as <name>.v1.json.",
        ),
    ] = False
    maps: Annotated[
        bool,
        Parameter(
            name="--map",
            group=opt.FILES,
            help="Also draw what is computed and what is not, as <name>.png.",
        ),
    ] = False

    def __post_init__(self) -> None:
        """Refuse to plan nothing, and options that would make no difference.

        Raises:
            CommandError: Says which options go together.
        """
        budgets = bool(self.computes or self.speedups)
        if not (budgets or self.errors or self.front or self.alphas or self.intervals):
            raise CommandError(
                "nothing to plan: give --compute, --speedup, --error or --front, or a published "
                "rule: --alpha, --interval"
            )
        by_rule = bool(self.alphas) or (budgets and self.rule == "smooth")
        if self.rule == "smooth" and not by_rule:
            raise CommandError("--rule smooth plans for --compute and --speedup; give one of them")
        if (self.per != "kind" or self.strict) and not by_rule:
            raise CommandError(
                "--per and --strict are SmoothCache's; give --alpha or --rule smooth"
            )
        only_lag = self.first == 1 and not (self.pinned or self.max_bytes or self.max_rows)
        changed = self.target != "auto" or self.fill is not None or self.toward != "plain"
        if not self.plans and (changed or not only_lag):
            raise CommandError(
                "--target, --fill, --toward, --first, --pin, --max-bytes and --max-rows are for "
                "--compute, --speedup, --error and --front, not for published rules"
            )
        if self.front and (len(self.errors) > 1 or self.target != "auto"):
            raise CommandError("--front compares all targets, and chooses for one --error at most")

    @property
    def plans(self) -> bool:
        """Whether anything is planned by predicted errors."""
        budgets = bool(self.computes or self.speedups)
        return bool(self.errors or self.front or (budgets and self.rule == "best"))

    @property
    def limits(self) -> Limits:
        """What the plans keep to. The largest lag holds for SmoothCache's rule too."""
        from smoothcache_core.planning import Limits

        return Limits(
            first=self.first,
            pinned=self.pinned,
            max_lag=self.max_lag,
            max_bytes=self.max_bytes,
            max_rows=self.max_rows,
        )

    @property
    def storage(self) -> Storage:
        """How the schedules are to keep outputs."""
        from smoothcache_core.schedule import Storage

        return Storage(place=self.keep_on, dtype=self.keep_as)

    @property
    def fill_rule(self) -> FillRule | None:
        """How skipped outputs are made; None for what suits the target."""
        from smoothcache_core.fills import fill_named

        return None if self.fill is None else fill_named(self.fill)
