"""The command line of all benchmarks: `python -m tools.bench quality | speed | compile | ...`."""

import warnings

import typer
from diffusers.utils import logging as diffusers_logging

from tools.bench import audio_command, image_command, quality_command, results
from tools.bench.studies import (
    demo,
    length,
    planning,
    portability,
    seconds,
    sensitivity,
    targets,
)

app = typer.Typer(
    help="Measure, and write a record into benchmarks/.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
speed = typer.Typer(help=image_command.__doc__, no_args_is_help=True)
speed.command(name="image")(image_command.speed)
speed.command(name="audio")(audio_command.speed)
app.add_typer(quality_command.app, name="quality")
app.add_typer(speed, name="speed")
app.command(name="compile")(image_command.compile_)
app.command(name="seconds", help=seconds.__doc__)(seconds.main)
app.command(name="planning", help=planning.__doc__)(planning.main)
app.command(name="sensitivity", help=sensitivity.__doc__)(sensitivity.main)
app.command(name="portability", help=portability.__doc__)(portability.main)
app.command(name="length", help=length.__doc__)(length.main)
app.command(name="targets", help=targets.__doc__)(targets.main)
app.command(name="results", help=results.__doc__)(results.main)
app.command(
    name="demo",
    help=demo.__doc__,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(demo.main)


def main() -> None:
    """Run the command that was typed."""
    diffusers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="Should have t[ab]")  # torchsde, of rounding
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    app()
