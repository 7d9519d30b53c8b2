"""The commands `import` and `export`: schedules of other programs, and for other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import Command
from smoothcache_core.cli.known import formats, importable, one_of

_NAMES = (
    "'smoothcache-v1' (SmoothCache's JSON), 'cache-dit', 'sglang', 'sd-cpp' (their masks over "
    "steps), 'computed-list' or 'cached-list' (lists over steps, 1 where computed or cached)"
)


@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Turn a schedule of another program into one of this one. Needs no model.

    What comes out is followed, judged and improved like any other: by sample, evaluate and fit.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.exchanging:import_file"

    file: Annotated[
        Path, Parameter(group=opt.ARGUMENTS, help="File that another program wrote.")
    ] = field(kw_only=False)
    format: Annotated[
        str,
        Parameter(
            group=opt.FILES,
            metavar="NAME",
            validator=one_of(importable),
            completer=importable,
            help=f"What the file is: {_NAMES}, or 'router' (a checkpoint of Learning-to-Cache or "
            "HarmoniCa).",
        ),
    ]
    threshold: Annotated[
        float,
        Parameter(
            group=opt.PLAN,
            validator=Number(gte=0.0, lt=1.0),
            help="For routers: what the score of a computed sub-layer exceeds.",
        ),
    ] = 0.1
    policy: Annotated[
        Literal["all", "alternate", "grid"],
        Parameter(
            group=opt.PLAN,
            help="For routers: where they decide. 'all': at every evaluation but the first "
            "(HarmoniCa). 'alternate': at every other one (Learning-to-Cache). 'grid': at the "
            "first of the two evaluations of a step (U-ViT).",
        ),
    ] = "all"
    components: Annotated[
        tuple[str, ...],
        Parameter(
            name="--component",
            group=opt.PLAN,
            help="For routers: what the sub-layers of a block are called in your model, in their "
            "order. Default: attn mlp; diffusers' DiT has attn1 and ff.",
        ),
    ] = ("attn", "mlp")
    output: Annotated[
        Path | None,
        opt.output_option(
            "File for the schedule. Default: NAME-imported.json, beside the file.", file=True
        ),
    ] = None
    force: opt.Force = False


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a schedule as another program takes it. Needs no model.

    Lists over steps say which evaluations are computed; how others are made is then up to that
    program, so its error is not the one that was predicted here.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.exchanging:export_file"

    schedule: Annotated[Path, Parameter(group=opt.ARGUMENTS, help=f"Schedule{opt.SHARED}.")] = (
        field(kw_only=False)
    )
    format: Annotated[
        str,
        Parameter(
            group=opt.FILES,
            metavar="NAME",
            validator=one_of(formats),
            completer=formats,
            help=f"What to write: {_NAMES}.",
        ),
    ]
    speedup: opt.Speedup = None
    output: Annotated[
        Path | None,
        opt.output_option("File to write. Default: what is written is printed.", file=True),
    ] = None
    force: opt.Force = False
