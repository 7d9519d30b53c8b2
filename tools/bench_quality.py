"""Which caching policy changes the samples least at equal compute?

    python tools/bench_quality.py image --solver ddim --steps 50
    python tools/bench_quality.py image --solver dpmsolver++ --steps 20
    python tools/bench_quality.py image --model digits-flow --steps 50

Samples the trained model that is shipped under every policy at several compute budgets, from the
same noise, and compares what comes out with the plain run's samples. Writes a record into
benchmarks/: a JSON file, a table and a plot.

The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from _quality_record import save, to_record
from _quality_run import measure
from _quality_settings import BUDGETS, WORK, Settings
from _records import FOLDER
from diffusers.utils import logging as diffusers_logging

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback(help=__doc__)
def main() -> None:
    """Keep `image` a command of its own beside those to come."""


@app.command()
def image(
    *,
    model: Annotated[str, typer.Option(help="digits or digits-flow.")] = "digits",
    solver: Annotated[str, typer.Option(help="As in load_pipeline.")] = "default",
    steps: Annotated[int, typer.Option(help="Steps of the plain run.")] = 50,
    budget: Annotated[list[float] | None, typer.Option(help="Compute fractions.")] = None,
    samples: Annotated[int, typer.Option(help="Samples of every evaluation seed.")] = 32,
    seed: Annotated[list[int] | None, typer.Option(help="Evaluation seeds.")] = None,
    calibration_samples: Annotated[int, typer.Option(help="Samples to calibrate with.")] = 16,
    reference_steps: Annotated[int, typer.Option(help="Of the exact solution.")] = 1000,
    repeats: Annotated[int, typer.Option(help="Timed runs of every policy and seed.")] = 1,
    policy: Annotated[list[str] | None, typer.Option(help="Only these policies.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads; the model is small.")] = 2,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.")] = False,
    work: Annotated[Path, typer.Option(help="Folder of what is kept between runs.")] = WORK,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Compare policies on the digits model."""
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
    record = to_record(settings, measure(settings))
    path = save(record, output)
    print(path.with_suffix(".md").read_text())
    print(f"written to {path}, {path.with_suffix('.md').name} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    diffusers_logging.set_verbosity_error()
    app()
