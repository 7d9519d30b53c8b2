"""Options that several commands share. Loads nothing heavy, so that help is shown at once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

MODEL = "The model"


SAMPLES = "What to sample"


MEASURE = "What to measure"


PLAN = "What to plan"


FILES = "Files"


Dtype = Literal["auto", "float32", "float16", "bfloat16"]


References = Literal["device", "cpu"]


# ---------------------------------------------------------------------------- of what is sampled

Device = Annotated[
    str,
    typer.Option(
        help="Device: 'cpu', 'cuda', 'cuda:1'; 'auto' is CUDA if there is any.",
        rich_help_panel=MODEL,
    ),
]


DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Data type of the weights; 'auto' is float32 on the CPU, else bfloat16.",
        rich_help_panel=MODEL,
    ),
]


Labels = Annotated[
    str | None,
    typer.Option(
        help="For class-conditional models: class numbers, ranges or names, separated by commas: "
        "'207,360', '0-9', 'three'. Samples take them in turn. Default: all classes.",
        show_default=False,
        rich_help_panel=SAMPLES,
    ),
]


Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="For text-conditional models: a prompt. Give it several times for several prompts; "
        "samples take them in turn.",
        show_default=False,
        rich_help_panel=SAMPLES,
    ),
]


Samples = Annotated[
    int, typer.Option(min=1, help="Samples to make, at least 1.", rich_help_panel=SAMPLES)
]


Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Samples of one run (one call of the pipeline); must divide --samples. Default: up "
        "to 10 for the small models, else 1.",
        show_default=False,
        rich_help_panel=SAMPLES,
    ),
]


Seed = Annotated[
    int,
    typer.Option(
        min=0,
        help="Seed of the first run, at least 0; the runs after it take the seeds that follow.",
        rich_help_panel=SAMPLES,
    ),
]


def model_option(text: str) -> typer.models.OptionInfo:
    """Return the `--model` option."""
    return typer.Option("--model", help=text, rich_help_panel=MODEL)


def steps_option(default: int) -> typer.models.OptionInfo:
    """Return the `--steps` option."""
    return typer.Option(
        "--steps",
        min=1,
        help="Steps of the solver, at least 1. Default: those of the schedule if there is one, "
        f"else {default}.",
        show_default=False,
        rich_help_panel=MODEL,
    )


def guidance_option(shipped: float) -> typer.models.OptionInfo:
    """Return the `--guidance` option; `shipped` is what is best for the small models."""
    return typer.Option(
        "--guidance",
        min=0.0,
        help="Strength of classifier-free guidance, at least 0; 1 is none. Default: the model's "
        f"own; {shipped:g} for the small models.",
        show_default=False,
        rich_help_panel=MODEL,
    )


NewSteps = Annotated[
    int,
    typer.Option(
        "--steps",
        min=1,
        help="Steps of the solver to transfer to: at least 4 evaluations, at most twice as many as "
        "were calibrated.",
        rich_help_panel=MODEL,
    ),
]


# ---------------------------------------------------------------------------- of what is measured

MeasuredLag = Annotated[
    int,
    typer.Option(
        "--max-lag",
        min=1,
        help="Largest distance to compare outputs over, in evaluations, at least 1. Plans of parts "
        "of the model skip up to half as many in a row. Each takes memory for one copy of all "
        "outputs.",
        rich_help_panel=MEASURE,
    ),
]


Sensitivity = Annotated[
    int,
    typer.Option(
        min=0,
        help="Runs to measure sensitivities with, at least 0: what errors do to the final sample. "
        "Each takes as long as some five more. Plans need at least 1; the published rules need 0.",
        rich_help_panel=MEASURE,
    ),
]


KeptOn = Annotated[
    References,
    typer.Option(
        "--references",
        help="Where earlier outputs are kept for comparison: on the model's device, or on the CPU, "
        "which is slower and takes no memory of the device.",
        rich_help_panel=MEASURE,
    ),
]


FitTerms = Annotated[
    int | None,
    typer.Option(
        "--terms",
        min=1,
        max=3,
        show_default=False,
        rich_help_panel=PLAN,
        help="Most computed outputs that a fill combines. If not given, 3 for whole evaluations; "
        "parts of the model keep as many as the schedule has, and plain reuse stays.",
    ),
]


Trials = Annotated[
    int | None,
    typer.Option(
        "--refine",
        min=1,
        show_default=False,
        rich_help_panel=PLAN,
        metavar="TRIALS",
        help="Also move what is computed, if that lowers the error: schedules to try, at least "
        "1. Each takes as long as a cached run of all samples.",
    ),
]


# ---------------------------------------------------------------------------- of the demo

DemoSamples = Annotated[
    int,
    typer.Option(
        "--samples", min=1, help="Samples to judge with, at least 1.", rich_help_panel=SAMPLES
    ),
]


CalibrationSamples = Annotated[
    int,
    typer.Option(min=1, help="Samples to calibrate with, at least 1.", rich_help_panel=SAMPLES),
]


Threads = Annotated[
    int,
    typer.Option(min=0, help="CPU threads; 0 tries what is fastest now.", rich_help_panel=MODEL),
]


def demo_computes(default: tuple[float, ...]) -> typer.models.OptionInfo:
    """Return the `--compute` option of a demo."""
    return typer.Option(
        "--compute",
        help="Compute fraction to plan for, in (0, 1]: MACs over those of the plain model. "
        f"Repeatable. Default: {', '.join(f'{each:g}' for each in default)}.",
        show_default=False,
        rich_help_panel=PLAN,
    )


# ---------------------------------------------------------------------------- files

CalibrationToWrite = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        dir_okay=False,
        rich_help_panel=FILES,
        help="File for what is measured. It is saved after every run, and continued if it is "
        "there already.",
    ),
]


TransferredToWrite = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        dir_okay=False,
        rich_help_panel=FILES,
        help="File for the transferred calibration; not the one that it is transferred from.",
    ),
]


FittedToWrite = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        dir_okay=False,
        rich_help_panel=FILES,
        help="File for the fitted schedule.",
    ),
]


SchedulesToWrite = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        rich_help_panel=FILES,
        help="Folder for the schedules, or a file ending in .json for a single one.",
    ),
]


Tried = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        dir_okay=False,
        show_default=False,
        rich_help_panel=FILES,
        help="With --refine, file that keeps what was tried, and is continued from.",
    ),
]


ScheduleToSampleBy = Annotated[
    Path | None,
    typer.Option(
        "--schedule",
        dir_okay=False,
        help="Schedule to sample by; without it everything is computed.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]


CalibrationToDraw = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        dir_okay=False,
        help="File written by calibrate, to draw its errors and what can be planned from it.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]


Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peers",
        metavar="FILE",
        help="Record of a benchmark (JSON) whose other methods are drawn beside these schedules. "
        "Repeatable; quote a pattern: 'benchmarks/quality-*.json'.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]


def folder_option(text: str) -> typer.models.OptionInfo:
    """Return the `--output` option of a command that writes a folder."""
    return typer.Option("--output", "-o", file_okay=False, help=text, rich_help_panel=FILES)


ReportFolder = Annotated[Path, folder_option("Folder for the report and its pictures.")]


DemoFolder = Annotated[Path, folder_option("Folder for everything the demo writes.")]


SamplesFolder = Annotated[Path, folder_option("Folder for the samples.")]
