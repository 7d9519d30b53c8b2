"""Reading whole files, and writing them so that a reader never sees half of one."""

import errno
import os
import secrets
import stat
from pathlib import Path

from smoothcache_core.errors import OutputError, SmoothCacheError

_NAME = 200  # characters of a name that leave room for more, of the 255 that a name may have


_OPEN = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")
"""Names of open files: a new file in the place of one would be written behind the reader's back."""


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

    A symlink is followed: the file that it names is written. A file that is there keeps its mode;
    a new one has that of the process (umask). What is no file, such as a pipe or a terminal, is
    written to, and refused if nothing reads from it.

    Args:
        path: The file to write; the content of an existing one is replaced.
        content: The whole content.

    Returns:
        The path written.

    Raises:
        OutputError: It cannot be written. What was there is as it was, and nothing else is left.
    """
    try:
        target = _regular(path)
        if target is None:
            _write_to_stream(path, content)
            return Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_beside(target)
        try:
            temporary.write_bytes(content)
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as problem:
        raise OutputError(f"cannot write {str(path)!r}: {reason_of(problem)}") from problem
    return Path(path)


def check_output(path: str | Path, *, folder: bool = False) -> None:
    """Refuse a path that nothing can be written to, before the work whose result it is for.

    A file is made and taken away again, in the folder or where the folder would be made.

    Args:
        path: Where a file is to be written, or several in a folder.
        folder: Whether it is a folder.

    Raises:
        OutputError: It cannot be written; says why.
    """
    try:
        target = Path(path) / "file" if folder else _regular(path)
        if target is None:
            return
        there = next(each for each in target.parents if each.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{str(there)!r} is no folder")
        _new_beside(there / target.name).unlink()
    except (OSError, ValueError) as problem:
        raise OutputError(f"cannot write to {str(path)!r}: {reason_of(problem)}") from problem


def _regular(path: str | Path) -> Path | None:
    """Return the file that a path names, which may not be there yet; None for what is no file.

    Raises:
        OSError: It is a folder, or may not be written.
    """
    target = Path(os.path.realpath(path))
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not Path(path).exists():
        return target
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    is_open = str(Path(path).absolute()).startswith(_OPEN)
    return None if is_open or not Path(path).is_file() else target


def _write_to_stream(path: str | Path, content: bytes) -> None:
    """Write to what is no file, or is open already; not waiting for somebody who reads it."""
    try:
        stream = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nothing reads from it") from error
        raise
    os.set_blocking(stream, True)
    with os.fdopen(stream, "wb") as file:
        file.write(content)


def _new_beside(target: Path) -> Path:
    """Make an empty file in the folder of another, with the mode that a new file has here."""
    temporary = target.with_name(f".{target.name[:_NAME]}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary
