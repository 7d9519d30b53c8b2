"""Options that several commands share. Loads nothing heavy, so that help is shown at once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

MODEL = "The model"
SAMPLES = "What to sample"
MEASURE = "What to measure"
PLAN = "What to plan"
FILES = "Files"

Solver = Literal["default", "ddim", "dpmsolver++", "sde-dpmsolver++"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
References = Literal["device", "cpu"]

Model = Annotated[
    str,
    typer.Option(
        help="A pipeline folder, a name on the model hub ('facebook/DiT-XL-2-256'), or a small "
        "model that comes with this package: 'digits' predicts noise, 'digits-flow' a flow.",
        rich_help_panel=MODEL,
    ),
]
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
SolverOption = Annotated[
    Solver,
    typer.Option(
        "--solver",
        help="Solver; 'default' is the model's own, 'ddim' is for models that predict noise, "
        "'sde-dpmsolver++' adds noise at every step.",
        rich_help_panel=MODEL,
    ),
]
Steps = Annotated[
    int,
    typer.Option(min=1, help="Steps of the solver, at least 1.", rich_help_panel=MODEL),
]
StepsOfSchedule = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Steps of the solver, at least 1. Default: those of the schedule, else 50.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Strength of classifier-free guidance, at least 0; 1 is none. Default: the model's "
        "own; 1.5 for the small models.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=8,
        help="Height and width in pixels, for models that take prompts. Default: the model's.",
        show_default=False,
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
SamplesFolder = Annotated[Path, folder_option("Folder for the pictures.")]
