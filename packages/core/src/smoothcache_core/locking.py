"""Files that one call at a time continues."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from smoothcache_core.errors import SmoothCacheError


@contextmanager
def locked(path: str | Path | None, error: type[SmoothCacheError]) -> Generator[None]:
    """Keep a file to oneself: no other process or thread gets it meanwhile.

    The lock is the system's, on a hidden file beside it. It ends with the process that holds it,
    however that ends.

    Args:
        path: The file, which need not be there; None for none.
        error: Class of the error to raise.

    Raises:
        SmoothCacheError: Somebody else has it, or its folder cannot be written to; of the class
            `error`.
    """
    if path is None:
        yield
        return
    target = Path(path)
    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=0)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise error(
            f"{str(path)!r} is being written by another process; wait for it, or use another file"
        ) from None
    except OSError as problem:
        raise error(f"cannot write {str(path)!r}: {problem.strerror or problem}") from problem
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: nobody else's is removed
        lock.release()
