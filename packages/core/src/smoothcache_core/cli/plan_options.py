"""Options of `plan`. Loads nothing heavy, so that help is shown at once."""

import re
from types import MappingProxyType
from typing import Annotated, Literal

import typer

from smoothcache_core.cli.options import FILES, PLAN

LIMITS = "What plans must keep to"


PUBLISHED = "Published rules"


Rule = Literal["best", "smooth"]


Per = Literal["kind", "site"]


_UNITS = MappingProxyType(
    {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
)


def parse_bytes(text: str | int) -> int:
    """Return the bytes that a text such as `"2GB"`, `"512 MiB"` or `"1000000"` means.

    Raises:
        typer.BadParameter: It is no positive size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no size; give bytes, or for example 500MB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2]])


Computes = Annotated[
    list[float] | None,
    typer.Option(
        "--compute",
        help="Compute fraction to keep to, in (0, 1]: MACs over those of the plain model. "
        "Repeatable.",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]


Speedups = Annotated[
    list[float] | None,
    typer.Option(
        "--speedup",
        help="Speed-up to reach if time were MACs alone, at least 1. Repeatable.",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]


Errors = Annotated[
    list[float] | None,
    typer.Option(
        "--error",
        help="Relative L2 error of the final sample to keep to, above 0, by the least compute. "
        "Repeatable. With --front, what the choice keeps to; 0.01 if not given.",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]


PlanTarget = Annotated[
    str,
    typer.Option(
        "--target",
        help="What to skip: whole evaluations of the denoiser; these and unconditional passes "
        "(guidance); parts of the model, planned by site, kind or evaluation, by SmoothCache's "
        "rule (smooth) or at regular intervals (interval). 'auto' takes what is predicted to be "
        "best.",
        rich_help_panel=PLAN,
    ),
]


Front = Annotated[
    bool,
    typer.Option(
        "--front",
        help="Compare all targets at many compute fractions, as a table and front.png, and choose.",
        rich_help_panel=PLAN,
    ),
]


First = Annotated[
    int,
    typer.Option(
        min=1,
        help="How many of the first evaluations are computed, at least 1.",
        rich_help_panel=LIMITS,
    ),
]


Pinned = Annotated[
    list[int] | None,
    typer.Option(
        "--pin",
        min=0,
        help="An evaluation that is computed in any case, counted from 0. Repeatable.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


PlannedLag = Annotated[
    int | None,
    typer.Option(
        "--max-lag",
        min=1,
        help="Most evaluations skipped in a row, at least 1. Default: 3 for the published rules, "
        "half of what was measured for parts of the model, any for whole evaluations.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


MaxBytes = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="Most memory for cached outputs: '2GB', '500MiB', or bytes.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


MaxRows = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most different rows of parts, at least 1; each is a graph of a compiled model.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


PlanRule = Annotated[
    Rule,
    typer.Option(
        "--rule",
        help="How to plan for --compute and --speedup: 'best' by predicted errors, 'smooth' by "
        "SmoothCache's threshold.",
        rich_help_panel=PUBLISHED,
    ),
]


Alphas = Annotated[
    list[float] | None,
    typer.Option(
        "--alpha",
        help="SmoothCache's threshold: largest relative error of what is reused, at least 0; 0.08 "
        "to 0.35 is usual. Repeatable.",
        show_default=False,
        rich_help_panel=PUBLISHED,
    ),
]


Intervals = Annotated[
    list[int] | None,
    typer.Option(
        "--interval",
        help="Compute at every n-th evaluation, n at least 1, whatever was measured (FORA). "
        "Repeatable.",
        show_default=False,
        rich_help_panel=PUBLISHED,
    ),
]


SmoothPer = Annotated[
    Per,
    typer.Option(
        "--per",
        help="SmoothCache's threshold for all sites of a kind together, or for each by itself.",
        rich_help_panel=PUBLISHED,
    ),
]


Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="All shorter reuses must be within the threshold too, not only the longest.",
        rich_help_panel=PUBLISHED,
    ),
]


V1 = Annotated[
    bool,
    typer.Option(
        "--v1",
        help="Also write SmoothCache's original JSON, as <name>.v1.json.",
        rich_help_panel=FILES,
    ),
]


Maps = Annotated[
    bool,
    typer.Option(
        "--map",
        help="Also draw what is computed and what is not, as <name>.png.",
        rich_help_panel=FILES,
    ),
]
