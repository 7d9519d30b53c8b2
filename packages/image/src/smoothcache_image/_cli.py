"""The command line: `smoothcache-image demo|calibrate|plan|fit|sample|evaluate`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from smoothcache_image import _options as opt, _plan_options as asked
from smoothcache_image._app import app

__all__ = ["app", "main"]


@app.command(
    epilog="Example:\n\n    smoothcache-image demo --output demo-output --samples 200",
)
def demo(
    output: opt.DemoFolder = Path("demo-output"),
    samples: Annotated[
        int,
        typer.Option(min=1, help="Samples to judge with, at least 1.", rich_help_panel=opt.SAMPLES),
    ] = 100,
    calibration_samples: Annotated[
        int,
        typer.Option(
            min=1, help="Samples to calibrate with, at least 1.", rich_help_panel=opt.SAMPLES
        ),
    ] = 10,
    steps: opt.Steps = 50,
    solver: opt.SolverOption = "default",
    guidance: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Strength of classifier-free guidance, at least 0; 1 is none.",
            rich_help_panel=opt.MODEL,
        ),
    ] = 1.5,
    compute: Annotated[
        list[float] | None,
        typer.Option(
            help="Compute fraction to plan for, in (0, 1]: MACs over those of the plain model. "
            "Repeatable. Default: 0.5, 0.35, 0.25.",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    max_lag: opt.MeasuredLag = 12,
    seed: opt.Seed = 0,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="CPU threads; 0 tries what is fastest now.", rich_help_panel=opt.MODEL
        ),
    ] = 0,
) -> None:
    """Calibrate, plan, fit, sample and judge the small digits model that comes with this package.

    Compares the best plan with SmoothCache's rule at equal compute. Takes a minute or two on a CPU.
    Writes pictures, schedules and a report.
    """
    from smoothcache_image._demo import DemoSettings, run_demo

    settings = DemoSettings(
        output=output,
        samples=samples,
        calibration_samples=calibration_samples,
        steps=steps,
        solver=solver,
        guidance=guidance,
        computes=tuple(compute or (0.5, 0.35, 0.25)),
        max_lag=max_lag,
        seed=seed,
        threads=threads,
    )
    run_demo(settings)


@app.command(
    epilog="Examples:\n\n    smoothcache-image calibrate --steps 50 -o digits.safetensors\n\n"
    "    smoothcache-image calibrate --model facebook/DiT-XL-2-256 --dtype float16\n\n"
    "    smoothcache-image calibrate --model PixArt-alpha/PixArt-Sigma-XL-2-1024-MS --steps 20 "
    "--prompt 'a red fox' --prompt 'a city at night'",
)
def calibrate(
    model: opt.Model = "digits",
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", dir_okay=False, rich_help_panel=opt.FILES,
            help="File for what is measured. It is saved after every run, and continued if it is "
            "there already.",
        ),
    ] = Path("calibration.safetensors"),
    samples: opt.Samples = 10,
    sensitivity: opt.Sensitivity = 2,
    max_lag: opt.MeasuredLag = 12,
    references: opt.KeptOn = "device",
    labels: opt.Labels = None,
    prompt: opt.Prompts = None,
    seed: opt.Seed = 0,
    batch: opt.Batch = None,
    steps: opt.Steps = 50,
    solver: opt.SolverOption = "default",
    guidance: opt.Guidance = None,
    size: opt.Size = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
) -> None:  # fmt: skip
    """Measure how much every part of a model changes during a run, and what errors would do.

    Samples as usual; then perturbs some runs, to learn how sensitive the final sample is. A few
    samples are enough; the result holds for this model, solver and number of steps.
    """
    from smoothcache_image._calibrating import Measuring, calibrate_to_file
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    how = Measuring(max_lag=max_lag, sensitivity=sensitivity, references=references)
    calibrate_to_file(source, output, how)


@app.command(
    epilog="Examples:\n\n    smoothcache-image plan calibration.safetensors --compute 0.5\n\n"
    "    smoothcache-image plan calibration.safetensors --speedup 2 --max-bytes 2GB\n\n"
    "    smoothcache-image plan calibration.safetensors --error 0.01 -o good.json\n\n"
    "    smoothcache-image plan calibration.safetensors --front\n\n"
    "    smoothcache-image plan calibration.safetensors --compute 0.5 --rule smooth --map\n\n"
    "    smoothcache-image plan calibration.safetensors --interval 2 -o every-second.json --v1",
)
def plan(
    calibration: Annotated[
        Path, typer.Argument(help="File written by calibrate.", metavar="CALIBRATION")
    ],
    compute: asked.Computes = None,
    speedup: asked.Speedups = None,
    error: asked.Errors = None,
    target: asked.PlanTarget = "auto",
    front: asked.Front = False,
    first: asked.First = 1,
    max_lag: asked.PlannedLag = None,
    max_bytes: asked.MaxBytes = None,
    max_rows: asked.MaxRows = None,
    rule: asked.PlanRule = "best",
    alpha: asked.Alphas = None,
    interval: asked.Intervals = None,
    per: asked.SmoothPer = "kind",
    strict: asked.Strict = False,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", rich_help_panel=opt.FILES,
            help="Folder for the schedules, or a file ending in .json for a single one.",
        ),
    ] = Path("schedules"),
    v1: asked.V1 = False,
    maps: asked.Maps = False,
) -> None:  # fmt: skip
    """Turn a calibration into schedules: what to compute and what to skip. Needs no model.

    Give --compute, --speedup or --error, each as often as you like, and get the best schedule for
    each; or --front to see them all. Or a published rule: --alpha, --interval, --rule smooth.
    """
    from smoothcache_core import PlanLimits

    from smoothcache_image._planning import PlanSettings, plan_to_files

    settings = PlanSettings(
        computes=compute or (), speedups=speedup or (), errors=error or (), target=target,
        front=front, rule=rule, alphas=alpha or (), intervals=interval or (), per=per,
        strict=strict,
        limits=PlanLimits(first=first, max_lag=max_lag, max_bytes=max_bytes, max_rows=max_rows),
    )  # fmt: skip
    plan_to_files(calibration, settings, output, v1=v1, maps=maps)


@app.command(
    epilog="Examples:\n\n"
    "    smoothcache-image fit schedules/auto-compute0.5.json --samples 8 -o fitted.json\n\n"
    "    smoothcache-image fit schedules/auto-compute0.25.json --refine 50 --checkpoint tried.json",
)
def fit(
    schedule: Annotated[Path, typer.Argument(help="Schedule to fit.", metavar="SCHEDULE")],
    model: opt.Model = "digits",
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", dir_okay=False, rich_help_panel=opt.FILES,
            help="File for the fitted schedule.",
        ),
    ] = Path("fitted.json"),
    refine: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=False, rich_help_panel=opt.PLAN, metavar="TRIALS",
            help="Also move what is computed, if that lowers the error: schedules to try, at least "
            "1. Each takes as long as a cached run of all samples.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, show_default=False, rich_help_panel=opt.FILES,
            help="With --refine, file that keeps what was tried, and is continued from.",
        ),
    ] = None,
    samples: opt.Samples = 8,
    labels: opt.Labels = None,
    prompt: opt.Prompts = None,
    seed: opt.Seed = 0,
    batch: opt.Batch = None,
    steps: opt.StepsOfSchedule = None,
    solver: opt.SolverOption = "default",
    guidance: opt.Guidance = None,
    size: opt.Size = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
) -> None:  # fmt: skip
    """Fit a schedule to what its cached runs really do, and measure the error that it makes.

    The seeds may be those of the calibration. They are written down, and evaluate, which starts
    from seed 1000, refuses to judge with them.
    """
    from smoothcache_image._commands import fit_to_file
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    fit_to_file(source, schedule, output, trials=refine, checkpoint=checkpoint)


@app.command(
    epilog="Examples:\n\n    smoothcache-image sample --samples 10\n\n"
    "    smoothcache-image sample --samples 10 --schedule schedules/auto-compute0.5.json",
)
def sample(
    model: opt.Model = "digits",
    schedule: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Schedule to sample by; without it everything is computed.",
            show_default=False,
            rich_help_panel=opt.FILES,
        ),
    ] = None,
    output: opt.SamplesFolder = Path("samples"),
    samples: opt.Samples = 1,
    labels: opt.Labels = None,
    prompt: opt.Prompts = None,
    seed: opt.Seed = 0,
    batch: opt.Batch = None,
    steps: opt.StepsOfSchedule = None,
    solver: opt.SolverOption = "default",
    guidance: opt.Guidance = None,
    size: opt.Size = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
) -> None:
    """Sample pictures, plain or by a schedule, and tell what was reused and how long it took."""
    from smoothcache_image._commands import sample_to_folder
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    sample_to_folder(source, output, schedule=schedule)


@app.command(
    epilog="Examples:\n\n    smoothcache-image evaluate schedules/auto-compute0.5.json "
    "schedules/smooth-compute0.5.json --samples 50 --batch 10 --calibration "
    "calibration.safetensors\n\n    smoothcache-image evaluate fitted.json --samples 50 --peers "
    "'benchmarks/quality-image-*.json'",
)
def evaluate(
    schedules: Annotated[
        list[Path], typer.Argument(help="Schedules to compare with plain.", metavar="SCHEDULE...")
    ],
    model: opt.Model = "digits",
    calibration: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File written by calibrate, to draw its errors and what can be planned from it.",
            show_default=False,
            rich_help_panel=opt.FILES,
        ),
    ] = None,
    peers: opt.Peers = None,
    output: opt.ReportFolder = Path("evaluation"),
    samples: opt.Samples = 10,
    labels: opt.Labels = None,
    prompt: opt.Prompts = None,
    seed: opt.Seed = 1000,
    batch: opt.Batch = None,
    steps: opt.StepsOfSchedule = None,
    solver: opt.SolverOption = "default",
    guidance: opt.Guidance = None,
    size: opt.Size = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
) -> None:
    """Compare schedules with the plain model on the same seeds: speed, and what became of samples.

    Shows the errors that were predicted beside those measured. The seeds must not be those of the
    calibration, nor those that a schedule was fitted with.
    """
    from smoothcache_image._commands import evaluate_to_folder
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    evaluate_to_folder(source, schedules, output, calibration=calibration, peers=peers or ())


def main() -> None:
    """Run the command line."""
    app()
