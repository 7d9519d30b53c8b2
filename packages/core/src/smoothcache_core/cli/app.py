"""The app of a command line: what wrong input and warnings look like."""

import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from smoothcache_core.errors import SmoothCacheError, SmoothCacheWarning

UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""Base class of wrong usage: of typer's own copy of click, or of click in older typers."""


class _Commands(TyperGroup):
    """Ends in one line and status 2 where the input is wrong, without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        del standalone_mode
        with _warnings_in_one_line(self.name):
            sys.exit(self._run(*args, **extra))

    def _run(self, *args: Any, **extra: Any) -> int:
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except UsageProblem as error:
            message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
            return self._complain(message)
        except (typer.Abort, KeyboardInterrupt):
            self._complain("stopped")
            return 130
        except (OSError, SmoothCacheError) as error:
            return self._complain(str(error))
        return status if isinstance(status, int) else 0

    def _complain(self, message: str) -> int:
        if message:  # there is none where no command was given, and help was shown
            typer.echo(f"{self.name}: {' '.join(message.split())}", err=True)
        return 2


@contextmanager
def _warnings_in_one_line(name: str | None) -> Generator[None]:
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
        if issubclass(category, SmoothCacheWarning):
            typer.echo(f"{name}: note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def new_app(name: str, *, about: str, examples: Sequence[str]) -> typer.Typer:
    """Return an app without commands.

    Args:
        name: Name of the program.
        about: What its help says.
        examples: Command lines that its help shows, without the name of the program.
    """
    return typer.Typer(
        name=name,
        cls=_Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help=about,
        epilog=shown_examples(name, examples),
    )


def shown_examples(name: str, examples: Sequence[str]) -> str:
    """Return command lines as the end of a help text shows them."""
    lines = "\n\n".join(f"    {name} {example}" for example in examples)
    return f"Example{'s' if len(examples) > 1 else ''}:\n\n{lines}"
