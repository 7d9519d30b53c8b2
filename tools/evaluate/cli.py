"""The command line of the evaluation across modalities."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from smoothcache_core.cli.app import (
    OPTIONS,
    REFUSED,
    STOPPED,
    shown_examples,
    warnings_in_one_line,
)
from smoothcache_core.cli.leaving import leave
from smoothcache_core.errors import SmoothCacheError

from tools.evaluate.settings import Settings

NAME = "tools.evaluate"
INCOMPLETE = 1
"""Exit status where the report is written, but says that something is missing or failed."""

_ABOUT = (
    "Run image, video and audio models with the same policies at the same compute budgets.\n\n"
    "One report is written, a page to open in a browser. A run that was broken off continues when "
    "the same is typed again; several processes that a launcher starts share the work."
)
_EXAMPLES = (
    "--quick",
    "--modalities image --image-model facebook/DiT-XL-2-256 --samples 4",
    "--modalities video audio --budgets 0.5 0.3 --policies planned fora fewer-steps",
)
app = App(
    name=f"python -m {NAME}",
    help=_ABOUT,
    help_epilogue=shown_examples(f"python -m {NAME}", _EXAMPLES),
    help_format="rich",
    help_flags=["--help", "-h"],
    version_flags=[],
    default_parameter=OPTIONS,
)


@app.default
def _asked(settings: Annotated[Settings | None, Parameter(name="*")] = None) -> Settings:
    """Evaluate the same policies on image, video and audio models, into one report."""
    return settings or Settings()


def run(words: Sequence[str]) -> int:
    """Evaluate, and return the exit status.

    Args:
        words: The options.

    Returns:
        0 if all that was asked for is in the report, 1 if the report says what is missing, 2 after
        a line that says why nothing was done.
    """
    options: dict[str, Any] = {"exit_on_error": False, "print_error": False}
    with warnings_in_one_line(NAME):
        try:
            settings = app(words, result_action="return_value", **options)
            if not isinstance(settings, Settings):  # after --help
                return 0
            from tools.evaluate.running import evaluate_all

            return 0 if evaluate_all(settings) else INCOMPLETE
        except KeyboardInterrupt:
            return _refused("stopped; the same command continues", STOPPED)
        except (CycloptsError, OSError, SmoothCacheError) as error:
            return _refused(str(error), REFUSED)


def _refused(message: str, status: int) -> int:
    sys.stderr.write(f"{NAME}: {' '.join(message.split())}\n")
    return status


def main() -> None:
    """Evaluate what was typed, and end the process."""
    leave(run(sys.argv[1:]))
