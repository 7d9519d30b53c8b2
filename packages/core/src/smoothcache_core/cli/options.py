"""Options that several commands share, and the panels of the help. Loads nothing heavy."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number, Path as Place

ARGUMENTS = Group("Arguments", sort_key=1)
MODEL = Group("The model", sort_key=2)
SAMPLES = Group("What to sample", sort_key=3)
MEASURE = Group("What to measure", sort_key=4)
PLAN = Group("What to plan", sort_key=5)
LIMITS = Group("What plans must keep to", sort_key=6)
PUBLISHED = Group("Published rules", sort_key=7)
FILES = Group("Files", sort_key=8)


Dtype = Literal["auto", "float32", "float16", "bfloat16"]


# ---------------------------------------------------------------------------- of what is sampled

Device = Annotated[
    str,
    Parameter(group=MODEL, help="Device: 'cpu', 'cuda', 'cuda:1'; 'auto' is CUDA if there is any."),
]


DtypeOption = Annotated[
    Dtype,
    Parameter(
        group=MODEL,
        help="Data type of the weights; 'auto' is float32 on the CPU, else bfloat16.",
    ),
]


AdapterOption = Annotated[
    str,
    Parameter(
        group=MODEL,
        metavar="NAME",
        help="What is known about the denoiser. 'auto': the adapter of its class, or of the "
        "schedule; else its parts are found by two evaluations. 'structure': found so in any case. "
        "'whole': only whole evaluations are skipped. Or the name of an adapter.",
    ),
]


Labels = Annotated[
    str | None,
    Parameter(
        group=SAMPLES,
        help="For class-conditional models: class numbers, ranges or names, separated by commas: "
        "'207,360', '0-9', 'three'. Samples take them in turn. Default: all classes.",
    ),
]


Prompts = Annotated[
    tuple[str, ...],
    Parameter(
        name="--prompt",
        group=SAMPLES,
        allow_leading_hyphen=True,
        help="For text-conditional models: a prompt. Give it several times for several prompts; "
        "samples take them in turn.",
    ),
]


Samples = Annotated[PositiveInt, Parameter(group=SAMPLES, help="Samples to make, at least 1.")]


Batch = Annotated[
    PositiveInt | None,
    Parameter(
        group=SAMPLES,
        help="Samples of one run (one call of the pipeline); must divide --samples. Default: up "
        "to 10 for the small models, else 1.",
    ),
]


Seed = Annotated[
    NonNegativeInt,
    Parameter(
        group=SAMPLES,
        help="Seed of the first run, at least 0; the runs after it take the seeds that follow.",
    ),
]


def model_option(text: str) -> Parameter:
    """Return the option `--model` of a modality."""
    return Parameter(group=MODEL, help=text)


def steps_option(default: int) -> Parameter:
    """Return the option `--steps` of a modality whose models make `default` steps."""
    return Parameter(
        group=MODEL,
        validator=Number(gte=1),
        help="Steps of the solver, at least 1. Default: those of the schedule if there is one, "
        f"else {default}.",
    )


def guidance_option(shipped: float) -> Parameter:
    """Return the option `--guidance`; `shipped` is what is best for the small models."""
    return Parameter(
        group=MODEL,
        validator=Number(gte=0.0),
        help="Strength of classifier-free guidance, at least 0; 1 is none. Default: the model's "
        f"own; {shipped:g} for the small models.",
    )


# ---------------------------------------------------------------------------- of several commands

MeasuredLag = Annotated[
    PositiveInt,
    Parameter(
        group=MEASURE,
        help="Largest distance to compare outputs over, in evaluations, at least 1. Plans of parts "
        "of the model skip up to half as many in a row. Each takes memory for one copy of all "
        "outputs.",
    ),
]


CalibrationFile = Annotated[Path, Parameter(group=ARGUMENTS, help="File written by calibrate.")]


Speedup = Annotated[
    float | None,
    Parameter(
        group=FILES,
        validator=Number(gte=1.0),
        help="Of a shared folder or a repository: take the schedule of the least error that is so "
        "much faster by MACs, at least 1. Not needed where there is one schedule only.",
    ),
]


SHARED = "; a file, a shared folder, or a repository of the model hub: 'user/name'"
"""What a schedule may be, for the help of options and arguments."""


Force = Annotated[
    bool,
    Parameter(group=FILES, help="Overwrite files that exist."),
]


def output_option(text: str, *, folder: bool = False, file: bool = False) -> Parameter:
    """Return the option `--output` of a command.

    Args:
        text: What the help says of it.
        folder: It is a folder, so a file that is there already is refused.
        file: It is a file, so a folder that is there already is refused.
    """
    return Parameter(
        name=("--output", "-o"),
        group=FILES,
        validator=Place(file_okay=not folder, dir_okay=not file),
        help=text,
    )


def file_option(text: str) -> Parameter:
    """Return an option that names a file; a folder of this name is refused."""
    return Parameter(group=FILES, validator=Place(dir_okay=False), help=text)
