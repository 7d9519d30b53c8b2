"""The command line of the evaluation across modalities.

    python -m tools.evaluate --quick
    python -m tools.evaluate --record
    torchrun --nproc-per-node 2 -m tools.evaluate
    python -m tools.evaluate --modalities image --image-model facebook/DiT-XL-2-256 --samples 4

Runs of image, video and audio models go through the same policies at the same budgets, and one
report is written. A run that was broken off continues when the same is typed again.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from smoothcache_core.cli.app import REFUSED, STOPPED, warnings_in_one_line
from smoothcache_core.errors import SmoothCacheError

from tools.evaluate.settings import Settings

NAME = "tools.evaluate"
INCOMPLETE = 1
"""Exit status where the report is written, but says that something is missing or failed."""

app = App(name=NAME, help=__doc__, version_flags=[], help_format="plaintext")


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
    sys.exit(run(sys.argv[1:]))
