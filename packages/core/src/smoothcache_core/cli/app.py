"""A command line: which command runs, and what wrong input and warnings look like."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, NoReturn, TextIO

from cyclopts import App, CycloptsError, Parameter

from smoothcache_core.cli.command import Command
from smoothcache_core.cli.leaving import leave
from smoothcache_core.cli.options import ARGUMENTS
from smoothcache_core.errors import SmoothCacheError, SmoothCacheWarning

if TYPE_CHECKING:
    from smoothcache_core.cli.modality import Modality

REFUSED = 2
"""Exit status where the input is wrong."""

STOPPED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal, as shells count it."""


def _shown(default: object) -> str | None:
    """Return a default as the help shows it; None for those that need not be told."""
    if isinstance(default, tuple):
        return ", ".join(map(str, default)) or None
    return None if default is None or default is False else str(default)


OPTIONS = Parameter(
    negative=(),  # no --no-flag and no --empty-list
    allow_repeating=True,  # of a scalar the last one counts, so that scripts can append
    show_default=_shown,
)
"""How the options of every program of this repository are typed and shown."""


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """The program of a modality. Calling it runs the command of the process and ends the process.

    Attributes:
        modality: What it is about.
        app: Its commands; cyclopts makes a `Command` of the words that it is given.
    """

    modality: Modality
    app: App

    def __call__(self) -> NoReturn:
        """Run the command that the process was started with, and end the process."""
        leave(self.run(sys.argv[1:]))

    def run(self, words: Sequence[str]) -> int:
        """Run a command and return its exit status: 0, or 2 after a line that says what is wrong.

        Args:
            words: The name of the command, its arguments and its options; none shows the help.
        """
        if not words:
            self.app.help_print([])
            return REFUSED
        with warnings_in_one_line(self.modality.command):
            try:
                command = self.app(
                    words, exit_on_error=False, print_error=False, result_action="return_value"
                )
                if isinstance(command, Command):  # None after --help and the like
                    command.run(self.modality)
            except KeyboardInterrupt:
                self._complain("stopped")
                return STOPPED
            except (CycloptsError, OSError, SmoothCacheError) as error:
                self._complain(str(error))
                return REFUSED
        return 0

    def _complain(self, message: str) -> None:
        _say(f"{self.modality.command}: {' '.join(message.split())}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@contextmanager
def warnings_in_one_line(name: str) -> Generator[None]:
    """Show our warnings as a sentence, and those of other libraries not at all.

    Args:
        name: Name of the program, which the sentence begins with.
    """

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
            _say(f"{name}: note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def new_app(name: str, *, about: str, examples: Sequence[str]) -> App:
    """Return an app without commands, but with `--help`, `--version` and `--install-completion`.

    Args:
        name: Name of the program, and of the distribution that it comes with.
        about: What its help says, with markup of rich.
        examples: Command lines that its help shows, without the name of the program.
    """
    app = App(
        name=name,
        help=about,
        help_epilogue=shown_examples(name, examples),
        help_format="rich",
        version=lambda: version(name),
        default_parameter=OPTIONS,
        group_arguments=ARGUMENTS,
        suppress_keyboard_interrupt=False,
    )
    app.register_install_completion_command(help="Set up completion for this shell, and exit.")
    return app


def shown_examples(name: str, examples: Sequence[str]) -> str:
    """Return command lines as the end of a help text shows them."""
    lines = "\n".join(f"    {name} {example}" for example in examples)
    return f"Example{'s' if len(examples) > 1 else ''}:\n\n{lines}"
