"""Ending the process of a command, also one of several that a launcher started."""

import os
import sys
from typing import NoReturn

_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def is_launched() -> bool:
    """Return whether torchrun or `accelerate launch` started this process beside others."""
    environment = os.environ  # noqa: TID251 this is how launchers tell it
    return environment.keys() >= _LAUNCHED and environment["WORLD_SIZE"] != "1"


def leave(status: int) -> NoReturn:
    """End this process; one that a launcher started ends without the interpreter's clean-up.

    In it a thread of gloo that still lets go of a tensor would abort the process, and the launcher
    would then end the others.

    Args:
        status: The exit status.
    """
    if is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
