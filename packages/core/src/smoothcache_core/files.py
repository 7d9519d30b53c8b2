"""Reading whole files, and writing them so that a reader never sees half of one."""

import os
import tempfile
from pathlib import Path

from smoothcache_core.errors import SmoothCacheError

_CHUNK = 2**20  # bytes that are read at once; a file of no end is seen to be one


def read_file(path: str | Path, what: str, error: type[SmoothCacheError], *, most: int) -> bytes:
    """Return the content of a file.

    Args:
        path: The file to read.
        what: What it should hold, for the message, such as `"schedule"`.
        error: Class of the error to raise.
        most: The most bytes that it may have.

    Raises:
        SmoothCacheError: It cannot be read, or is larger; of the class `error`.
    """
    try:
        with Path(path).open("rb") as file:
            content = bytearray()
            while len(content) <= most and (chunk := file.read(_CHUNK)):
                content += chunk
    except (OSError, ValueError, MemoryError) as problem:
        raise error(f"cannot read {what} {str(path)!r}: {reason_of(problem)}") from problem
    if len(content) > most:
        raise error(f"cannot read {what} {str(path)!r}: it has more than {most} bytes")
    return bytes(content)


def reason_of(problem: Exception) -> str:
    """Return what went wrong with a file, in words that fit behind its name."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or type(problem).__name__


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
