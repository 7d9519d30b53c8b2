"""Which caching policy changes the samples least at equal compute?

    python -m tools.bench quality image --solver ddim --steps 50
    python -m tools.bench quality image --solver dpmsolver++ --steps 20
    python -m tools.bench quality image --model digits-flow --steps 50
    python -m tools.bench quality audio --solver dpmpp-3m-sde --steps 100
    python -m tools.bench quality audio --solver dpmpp-2m --steps 50

Samples the trained model that is shipped under every policy at several compute budgets, from the
same noise, and compares what comes out with the plain run's samples. Writes a record into
benchmarks/: a JSON file, a table and a plot.

The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.bench.models.model import Modality
from tools.bench.quality_settings import BUDGETS, WORK, Settings
from tools.bench.records import FOLDER
from tools.bench.studies.quality import measure
from tools.bench.studies.quality_record import save, to_record

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback(help=__doc__)
def main() -> None:
    """Let every modality be a command of its own."""


Budget = Annotated[list[float] | None, typer.Option(help="Compute fractions.")]
Samples = Annotated[int, typer.Option(help="Samples of every evaluation seed.")]
Seed = Annotated[list[int] | None, typer.Option(help="Evaluation seeds.")]
CalibrationSamples = Annotated[int, typer.Option(help="Samples to calibrate with.")]
ReferenceSteps = Annotated[int, typer.Option(help="Of the exact solution.")]
Repeats = Annotated[int, typer.Option(help="Timed runs of every policy and seed.")]
Policies = Annotated[list[str] | None, typer.Option("--policy", help="Only these policies.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="Threads; the model is small.")]
Resume = Annotated[bool, typer.Option(help="Go on with a run that was stopped.")]
Work = Annotated[Path, typer.Option(help="Folder of what is kept between runs.")]
Output = Annotated[Path, typer.Option(help="Folder of the record.")]


@app.command()
def image(
    *,
    model: Annotated[str, typer.Option(help="digits or digits-flow.")] = "digits",
    solver: Annotated[str, typer.Option(help="As in load_pipeline.")] = "default",
    steps: Annotated[int, typer.Option(help="Steps of the plain run.")] = 50,
    budget: Budget = None,
    samples: Samples = 32,
    seed: Seed = None,
    calibration_samples: CalibrationSamples = 16,
    reference_steps: ReferenceSteps = 1000,
    repeats: Repeats = 1,
    policy: Policies = None,
    device: Device = "cpu",
    threads: Threads = 2,
    resume: Resume = False,
    work: Work = WORK,
    output: Output = FOLDER,
) -> None:
    """Compare policies on the digits model."""
    from tools.bench.models.image import IMAGE

    torch.set_num_threads(threads)
    settings = Settings(
        model=model,
        solver=solver,
        steps=steps,
        budgets=budget or BUDGETS,
        samples=samples,
        seeds=seed or Settings.seeds,
        calibration_samples=calibration_samples,
        reference_steps=reference_steps,
        repeats=repeats,
        device=device,
        only=policy or (),
        work=work,
        resume=resume,
    )
    _measure(IMAGE, settings, output)


@app.command()
def audio(
    *,
    model: Annotated[str, typer.Option(help="spoken-digits, or a folder.")] = "spoken-digits",
    solver: Annotated[str, typer.Option(help="As in prompt_sampler.")] = "dpmpp-3m-sde",
    steps: Annotated[int, typer.Option(help="Steps of the plain run.")] = 100,
    budget: Budget = None,
    samples: Samples = 20,
    seed: Seed = None,
    calibration_samples: CalibrationSamples = 10,
    reference_steps: ReferenceSteps = 400,
    repeats: Repeats = 1,
    policy: Policies = None,
    device: Device = "cpu",
    threads: Threads = 1,
    resume: Resume = False,
    work: Work = WORK,
    output: Output = FOLDER,
) -> None:
    """Compare policies on the spoken-digits model."""
    from tools.bench.models.audio import audio as modality

    warnings.filterwarnings("ignore", message="Should have t[ab]")  # torchsde, of rounding
    torch.set_num_threads(threads)
    settings = Settings(
        model=model,
        solver=solver,
        steps=steps,
        budgets=budget or BUDGETS,
        samples=samples,
        seeds=seed or Settings.seeds,
        calibration_samples=calibration_samples,
        reference_steps=reference_steps,
        repeats=repeats,
        device=device,
        only=policy or (),
        work=work,
        resume=resume,
    )
    _measure(modality(), settings, output)


def _measure(modality: Modality, settings: Settings, output: Path) -> None:
    path = save(to_record(settings, measure(modality, settings)), output)
    print(path.with_suffix(".md").read_text())
    print(f"written to {path}, {path.with_suffix('.md').name} and {path.with_suffix('.png').name}")
