"""The commands of a modality. Nothing heavy is loaded before one runs: help is shown at once."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from smoothcache_core.cli import options as opt, plan_options as asked
from smoothcache_core.cli.app import new_app, shown_examples
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.cli.taking import taking

_ABOUT = """Make diffusion transformers for {models} faster, by reusing what hardly changes from one
evaluation to the next.

Start with [bold]demo[/bold]: it needs no download and no GPU. With a model of your own:
[bold]calibrate[/bold] measures what changes and what errors would do, [bold]plan[/bold] turns that
into a schedule of what to skip, for a compute fraction, a speed-up or an error that you name;
[bold]fit[/bold] improves and measures it, [bold]sample[/bold] samples by it, [bold]evaluate[/bold]
compares it with the plain model.
[bold]transfer[/bold] carries a calibration over to another number of steps."""


_NOT_OF_TRANSFER = ("steps", "samples", "batch", "seed")
"""Fields of a source that `transfer` does not take: it makes runs of one seed, at its own steps."""


_EXAMPLES = MappingProxyType(
    {
        "": (
            "demo",
            "calibrate --samples 10",
            "plan calibration.safetensors --compute 0.5",
            "sample --schedule schedules/auto-compute0.5.json",
        ),
        "demo": ("demo --output demo-output",),
        "calibrate": ("calibrate --samples 10",),
        "transfer": ("transfer calibration.safetensors --steps 30",),
        "plan": (
            "plan calibration.safetensors --compute 0.5",
            "plan calibration.safetensors --speedup 2 --max-bytes 2GB",
            "plan calibration.safetensors --error 0.01 -o good.json",
            "plan calibration.safetensors --front",
            "plan calibration.safetensors --compute 0.5 --rule smooth --map",
            "plan calibration.safetensors --interval 2 -o every-second.json --v1",
        ),
        "fit": (
            "fit schedules/auto-compute0.5.json --samples 8 -o fitted.json",
            "fit schedules/auto-compute0.25.json --refine 50 --checkpoint tried.json",
        ),
        "sample": (
            "sample --samples 10",
            "sample --samples 10 --schedule schedules/auto-compute0.5.json",
        ),
        "evaluate": (
            "evaluate schedules/auto-compute0.5.json schedules/smooth-compute0.5.json "
            "--samples 50 --batch 10 --calibration calibration.safetensors",
        ),
    }
)


def command_line(modality: Modality) -> typer.Typer:
    """Return the app of a modality, with all commands, from demo to evaluate.

    Args:
        modality: What it is about.
    """
    name, examples = modality.command, {**_EXAMPLES, **modality.examples}
    app = new_app(name, about=_ABOUT.format(models=modality.models), examples=examples[""])
    commands = (
        _demo(modality),
        _calibrate(modality),
        _transfer(modality),
        plan,
        _fit(modality),
        _sample(modality),
        _evaluate(modality),
    )
    for command in commands:
        epilog = shown_examples(name, examples[command.__name__])
        app.command(epilog=epilog)(command)
    return app


def _demo(modality: Modality) -> Callable[..., None]:
    shown = modality.demo

    def demo(
        source: Source,
        *,
        output: opt.DemoFolder = Path("demo-output"),
        samples: opt.DemoSamples = shown.samples,
        calibration_samples: opt.CalibrationSamples = shown.calibration_samples,
        compute: Annotated[list[float] | None, opt.demo_computes(shown.computes)] = None,
        max_lag: opt.MeasuredLag = 12,
        threads: opt.Threads = 0,
    ) -> None:
        from dataclasses import replace

        from smoothcache_core.cli.demo import DemoSettings, run_demo

        settings = DemoSettings(
            output=output,
            samples=samples,
            batch=shown.batch,
            computes=tuple(compute or shown.computes),
            max_lag=max_lag,
            threads=threads,
        )
        count = calibration_samples
        run_demo(modality, replace(source, device="cpu", samples=count, batch=count), settings)

    demo.__doc__ = (
        f"Calibrate, plan, fit, sample and judge the small {shown.title.lower()} model that comes "
        "with this package.\n\nCompares the best plan with SmoothCache's rule at equal compute. "
        f"Takes {shown.duration} on a CPU. Writes {modality.units}, schedules and a report."
    )
    return taking(demo, modality.source, only=shown.options)


def _calibrate(modality: Modality) -> Callable[..., None]:
    def calibrate(
        source: Source,
        *,
        output: opt.CalibrationToWrite = Path("calibration.safetensors"),
        sensitivity: opt.Sensitivity = 2,
        max_lag: opt.MeasuredLag = 12,
        references: opt.KeptOn = "device",
    ) -> None:
        """Measure how much every part of a model changes during a run, and what errors would do.

        Samples as usual; then perturbs some runs, to learn how sensitive the final sample is. A few
        samples are enough; the result holds for this model, solver and number of steps.
        """
        from smoothcache_core.cli.calibrating import Measuring, calibrate_to_file

        how = Measuring(max_lag=max_lag, sensitivity=sensitivity, references=references)
        calibrate_to_file(modality.command, source, output, how)

    return taking(calibrate, modality.source, defaults={"samples": 10})


def _transfer(modality: Modality) -> Callable[..., None]:
    def transfer(
        source: Source,
        *,
        calibration: Annotated[
            Path, typer.Argument(help="File written by calibrate.", metavar="CALIBRATION")
        ],
        steps: opt.NewSteps,
        output: opt.TransferredToWrite = Path("transferred.safetensors"),
    ) -> None:
        """Carry a calibration over to another number of steps, without evaluating the model.

        An estimate, for the same model, solver and guidance: give them as they were calibrated.
        """
        from smoothcache_core.cli.transferring import transfer_to_file

        transfer_to_file(modality.command, source, calibration, output, steps=steps)

    others = [each.name for each in fields(modality.source) if each.name not in _NOT_OF_TRANSFER]
    return taking(transfer, modality.source, only=others)


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
    pin: asked.Pinned = None,
    max_lag: asked.PlannedLag = None,
    max_bytes: asked.MaxBytes = None,
    max_rows: asked.MaxRows = None,
    rule: asked.PlanRule = "best",
    alpha: asked.Alphas = None,
    interval: asked.Intervals = None,
    per: asked.SmoothPer = "kind",
    strict: asked.Strict = False,
    output: opt.SchedulesToWrite = Path("schedules"),
    v1: asked.V1 = False,
    maps: asked.Maps = False,
) -> None:
    """Turn a calibration into schedules: what to compute and what to skip. Needs no model.

    Give --compute, --speedup or --error, each as often as you like, and get the best schedule for
    each; or --front to see them all. Or a published rule: --alpha, --interval, --rule smooth.
    """
    from smoothcache_core.cli.planning import PlanSettings, plan_to_files
    from smoothcache_core.planning import Limits

    settings = PlanSettings(
        computes=compute or (), speedups=speedup or (), errors=error or (), target=target,
        front=front, rule=rule, alphas=alpha or (), intervals=interval or (), per=per,
        strict=strict,
        limits=Limits(
            first=first, pinned=tuple(pin or ()), max_lag=max_lag, max_bytes=max_bytes,
            max_rows=max_rows,
        ),
    )  # fmt: skip
    plan_to_files(calibration, settings, output, v1=v1, maps=maps)


def _fit(modality: Modality) -> Callable[..., None]:
    def fit(
        source: Source,
        *,
        schedule: Annotated[Path, typer.Argument(help="Schedule to fit.", metavar="SCHEDULE")],
        output: opt.FittedToWrite = Path("fitted.json"),
        terms: opt.FitTerms = None,
        refine: opt.Trials = None,
        checkpoint: opt.Tried = None,
    ) -> None:
        """Fit a schedule to what its cached runs really do, and measure the error that it makes.

        The seeds may be those of the calibration. They are written down, and evaluate, which starts
        from seed 1000, refuses to judge with them.
        """
        from smoothcache_core.cli.fitting import fit_to_file

        fit_to_file(
            modality.command,
            source,
            schedule,
            output,
            terms=terms,
            trials=refine,
            checkpoint=checkpoint,
        )

    return taking(fit, modality.source, defaults={"samples": 8})


def _sample(modality: Modality) -> Callable[..., None]:
    def sample(
        source: Source,
        *,
        schedule: opt.ScheduleToSampleBy = None,
        output: opt.SamplesFolder = Path("samples"),
    ) -> None:
        from smoothcache_core.cli.sampling import sample_to_folder

        sample_to_folder(modality, source, output, schedule=schedule)

    sample.__doc__ = (
        f"Sample {modality.units}, plain or by a schedule, and tell what was reused and how long "
        "it took."
    )
    return taking(sample, modality.source)


def _evaluate(modality: Modality) -> Callable[..., None]:
    def evaluate(
        source: Source,
        *,
        schedules: Annotated[
            list[Path],
            typer.Argument(help="Schedules to compare with plain.", metavar="SCHEDULE..."),
        ],
        calibration: opt.CalibrationToDraw = None,
        peers: opt.Peers = None,
        output: opt.ReportFolder = Path("evaluation"),
    ) -> None:
        """Compare schedules with the plain model: speed, and what becomes of the same samples.

        Shows the errors that were predicted beside those measured. The seeds must not be those of
        the calibration, nor those that a schedule was fitted with.
        """
        from smoothcache_core.cli.evaluating import evaluate_to_folder

        evaluate_to_folder(
            modality, source, schedules, output, calibration=calibration, peers=peers or ()
        )

    return taking(evaluate, modality.source, defaults={"samples": 10, "seed": 1000})
