"""Writing files so that a reader never sees half of one, and JSON that people can read."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` in one step, creating parent folders.

    Args:
        path: The file to write; an existing file is replaced.
        content: The whole content.

    Returns:
        The path written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def json_text(
    value: Any,
    on_one_line: Callable[[tuple[str, ...], Any], bool],
    *,
    path: tuple[str, ...] = (),
) -> str:
    """Return JSON that is indented by 2, but for the parts that are to stand on one line.

    Args:
        value: What to print; no NaN and no infinity.
        on_one_line: Whether a part stands on one line, given its keys from the top (an item of a
            list has its list's keys and an empty one), and the part.
        path: Keys that lead to `value`.

    Raises:
        ValueError: A number is not finite.
    """
    if not isinstance(value, dict | list) or not value or on_one_line(path, value):
        return json.dumps(value, allow_nan=False)
    inner = "  " * (len(path) + 1)
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key)}: {json_text(item, on_one_line, path=(*path, key))}"
            for key, item in value.items()
        ]
        first, last = "{", "}"
    else:
        parts = [json_text(item, on_one_line, path=(*path, "")) for item in value]
        first, last = "[", "]"
    return f"{first}\n" + ",\n".join(inner + part for part in parts) + f"\n{inner[2:]}{last}"
