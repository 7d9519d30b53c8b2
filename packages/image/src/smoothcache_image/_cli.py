"""The command line: `smoothcache-image demo|calibrate|plan|sample|evaluate`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperGroup

from smoothcache_image import _options as opt

NAME = "smoothcache-image"
UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""Base class of wrong usage: of typer's own copy of click, or of click in older typers."""


class _Commands(TyperGroup):
    """Ends in one line and status 2 where the input is wrong, without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        del standalone_mode
        with _warnings_in_one_line():
            sys.exit(self._run(*args, **extra))

    def _run(self, *args: Any, **extra: Any) -> int:
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except UsageProblem as error:
            return _complain(error.format_message())  # pyright: ignore[reportAttributeAccessIssue]
        except (typer.Abort, KeyboardInterrupt):
            _complain("stopped")
            return 130
        except OSError as error:
            return _complain(str(error))
        except Exception as error:
            from smoothcache_core import SmoothCacheError

            if not isinstance(error, SmoothCacheError):
                raise
            return _complain(str(error))
        return status if isinstance(status, int) else 0


def _complain(message: str) -> int:
    if message:  # there is none where no command was given, and help was shown
        typer.echo(f"{NAME}: {' '.join(message.split())}", err=True)
    return 2


@contextmanager
def _warnings_in_one_line() -> Generator[None]:
    """Show our warnings as a sentence, and those of other libraries not at all."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        del filename, lineno, file, line
        if category.__name__ == "SmoothCacheWarning":
            typer.echo(f"{NAME}: note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


app = typer.Typer(
    name=NAME,
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Make diffusion transformers for images faster, by reusing what hardly changes from one
    evaluation to the next.

    Start with [bold]demo[/bold]: it needs no download and no GPU. With a model of your own:
    [bold]calibrate[/bold] measures what changes, [bold]plan[/bold] turns that into a schedule of
    what to reuse, [bold]sample[/bold] samples by it, [bold]evaluate[/bold] compares it with the
    plain model.""",
    epilog="""Examples:\n
    smoothcache-image demo\n
    smoothcache-image calibrate --model facebook/DiT-XL-2-256 --samples 10\n
    smoothcache-image plan calibration.safetensors --compute 0.5\n
    smoothcache-image sample --schedule schedules/smooth-compute0.5.json
    """,
)


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
            "Give it several times for several schedules. Default: 0.75, 0.55, 0.35.",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    max_lag: opt.MaxLag = 3,
    seed: opt.Seed = 0,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="CPU threads; 0 tries what is fastest now.", rich_help_panel=opt.MODEL
        ),
    ] = 0,
) -> None:
    """Calibrate, plan, sample and judge the small digits model that comes with this package.

    Takes a minute or two on a CPU. Writes pictures, schedules and a report.
    """
    from smoothcache_image._demo import DemoSettings, run_demo

    settings = DemoSettings(
        output=output,
        samples=samples,
        calibration_samples=calibration_samples,
        steps=steps,
        solver=solver,
        guidance=guidance,
        computes=tuple(compute or (0.75, 0.55, 0.35)),
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
            help="File for the measured errors. It is saved after every run, and continued if it "
            "is there already.",
        ),
    ] = Path("calibration.safetensors"),
    samples: opt.Samples = 10,
    max_lag: opt.MaxLag = 3,
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
    """Measure how much every part of a model changes from one evaluation to the next.

    Samples as usual and reuses nothing. A few samples are enough; the result holds for this model,
    solver and number of steps.
    """
    from smoothcache_image._commands import calibrate_to_file
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    calibrate_to_file(source, output, max_lag=max_lag)


@app.command(
    epilog="Examples:\n\n    smoothcache-image plan calibration.safetensors --compute 0.5\n\n"
    "    smoothcache-image plan calibration.safetensors --alpha 0.1 --alpha 0.2 --map\n\n"
    "    smoothcache-image plan calibration.safetensors --interval 2 -o every-second.json --v1",
)
def plan(
    calibration: Annotated[
        Path, typer.Argument(help="File written by calibrate.", metavar="CALIBRATION")
    ],
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            help="Largest relative error of what is reused, at least 0; 0.08 to 0.35 is usual.",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    compute: Annotated[
        list[float] | None,
        typer.Option(
            help="Compute fraction to reach, in (0, 1]: MACs over those of the plain model.",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    interval: Annotated[
        list[int] | None,
        typer.Option(
            help="Compute at every n-th evaluation, n at least 1, whatever was measured (FORA).",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    per: Annotated[
        Literal["kind", "site"],
        typer.Option(
            help="Decide for all sites of a kind together (SmoothCache), or for each by itself.",
            rich_help_panel=opt.PLAN,
        ),
    ] = "kind",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="All shorter reuses must be within alpha too, not only the longest.",
            rich_help_panel=opt.PLAN,
        ),
    ] = False,
    max_lag: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest reuse, in evaluations, at least 1. Default: all that was measured.",
            show_default=False,
            rich_help_panel=opt.PLAN,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", rich_help_panel=opt.FILES,
            help="Folder for the schedules, or a file ending in .json for a single one.",
        ),
    ] = Path("schedules"),
    v1: Annotated[
        bool,
        typer.Option(
            "--v1", rich_help_panel=opt.FILES,
            help="Also write SmoothCache's original JSON, as <name>.v1.json.",
        ),
    ] = False,
    maps: Annotated[
        bool,
        typer.Option(
            "--map", rich_help_panel=opt.FILES,
            help="Also draw what is computed and what is reused, as <name>.png.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Turn measured errors into schedules: what to compute and what to reuse. Needs no model.

    Give --alpha, --compute or --interval, each as often as you like: one schedule for each.
    """
    from smoothcache_image._planning import PlanSettings, plan_to_files

    settings = PlanSettings(
        alphas=alpha or (), computes=compute or (), intervals=interval or (),
        per=per, strict=strict, max_lag=max_lag,
    )  # fmt: skip
    plan_to_files(calibration, settings, output, v1=v1, maps=maps)


@app.command(
    epilog="Examples:\n\n    smoothcache-image sample --samples 10\n\n"
    "    smoothcache-image sample --samples 10 --schedule schedules/smooth-compute0.5.json",
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
    epilog="Example:\n\n    smoothcache-image evaluate schedules/smooth-compute0.5.json "
    "schedules/interval-2.json --samples 50 --batch 10 --calibration calibration.safetensors",
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
            help="File written by calibrate, to draw its errors in the report.",
            show_default=False,
            rich_help_panel=opt.FILES,
        ),
    ] = None,
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

    The seeds must not be those of the calibration.
    """
    from smoothcache_image._commands import evaluate_to_folder
    from smoothcache_image._source import Source

    source = Source(
        model=model, device=device, dtype=dtype, solver=solver, steps=steps, guidance=guidance,
        size=size, labels=labels, prompts=prompt or (), samples=samples, batch=batch, seed=seed,
    )  # fmt: skip
    evaluate_to_folder(source, schedules, output, calibration=calibration)


def main() -> None:
    """Run the command line."""
    app()
