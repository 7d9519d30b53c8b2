"""Where commands write: names that tell what is in a file, and nothing overwritten unasked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from smoothcache_core.errors import CommandError

CALIBRATION = "calibration"
"""What names of calibration files begin with."""


def refuse_existing(outputs: Iterable[Path], *, force: bool) -> None:
    """Refuse to overwrite what is there. Call it before any work.

    Args:
        outputs: Files that will be written, and folders: one that is empty is as good as none.
        force: Whether the user wants it overwritten.

    Raises:
        CommandError: One of them is there; names it.
    """
    for output in outputs:
        if not force and _holds_something(output):
            raise CommandError(
                f"{str(output)!r} already exists; give --force to overwrite it, or another --output"
            )


def calibration_file(tag: str) -> Path:
    """Return where a calibration goes by default.

    Args:
        tag: What was calibrated, such as `"digits-50"`.
    """
    return Path(f"{CALIBRATION}-{tag}.safetensors")


def schedules_folder(calibration: Path, evaluations: int) -> Path:
    """Return where schedules go by default: one folder for each calibration.

    Args:
        calibration: The file that they are planned from.
        evaluations: Evaluations of a run.
    """
    known = calibration.stem.removeprefix(CALIBRATION).strip("-")
    numbers = re.findall(r"[0-9]+", known)
    steps = [] if str(evaluations) in numbers else [str(evaluations)]
    return Path("schedules") / "-".join([known, *steps] if known else steps)


def slug(text: str) -> str:
    """Return a text as a part of a file name: the last part of a path, in small letters."""
    name = (
        Path(text).expanduser().resolve().name if text.startswith((".", "~")) else Path(text).name
    )
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-.") or "model"


def _holds_something(output: Path) -> bool:
    return any(output.iterdir()) if output.is_dir() else output.exists() or output.is_symlink()
