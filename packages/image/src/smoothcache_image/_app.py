"""The app of the command line: its help, and what wrong input and warnings look like."""

import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

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
    [bold]calibrate[/bold] measures what changes and what errors would do, [bold]plan[/bold] turns
    that into a schedule of what to skip, for a compute fraction, a speed-up or an error that you
    name; [bold]fit[/bold] improves and measures it, [bold]sample[/bold] samples by it,
    [bold]evaluate[/bold] compares it with the plain model.""",
    epilog="""Examples:\n
    smoothcache-image demo\n
    smoothcache-image calibrate --model facebook/DiT-XL-2-256 --samples 10\n
    smoothcache-image plan calibration.safetensors --compute 0.5\n
    smoothcache-image sample --schedule schedules/auto-compute0.5.json
    """,
)
