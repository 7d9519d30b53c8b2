"""Reading a shared folder, on the disk or on the model hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcache_core.documents import parsed
from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import read_file
from smoothcache_core.schedule.sharing.hub import Download, downloaded, is_repository
from smoothcache_core.schedule.sharing.index import INDEX, Entry, Index, checksum

_MOST = 2**26  # bytes of a file: schedules of sites have up to a few megabytes


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A shared folder that is read.

    Attributes:
        where: What it is, for messages.
        index: What there is in it.
        path_of: Returns where a file of the folder is.
    """

    where: str
    index: Index
    path_of: Callable[[str], Path]

    def document(self, entry: Entry) -> Any:
        """Return the document of a schedule, after comparing its checksum.

        Args:
            entry: One of the index.

        Raises:
            ScheduleError: The file is not there, or not the one that the index is of.
        """
        content = read_file(self.path_of(entry.file), "schedule", ScheduleError, most=_MOST)
        if checksum(content) != entry.sha256:
            raise ScheduleError(
                f"{entry.file} of {self.where} is not the file that {INDEX} was written for: its "
                "checksum is another; it was changed or is incomplete"
            )
        try:
            return parsed(content)
        except ValueError as problem:
            raise ScheduleError(f"{entry.file} of {self.where}: {problem}") from problem


def shared(place: str | Path, options: Download) -> Shared:
    """Return what is in a shared folder.

    Args:
        place: A folder, or the name of a repository, such as `"user/name"`. A folder that is there
            comes first.
        options: Where from exactly, if it is a repository.

    Raises:
        ScheduleError: It is neither, has no index, or has one that cannot be used.
    """
    if Path(place).is_dir():
        return _folder(Path(place), options)
    if not isinstance(place, str) or not is_repository(place):
        raise ScheduleError(
            f"{str(place)!r} is no folder, and no repository either: those have names like "
            "'user/model-smoothcache'"
        )
    return _repository(place, options)


def _folder(folder: Path, options: Download) -> Shared:
    if options.get("revision") is not None:
        raise ScheduleError(f"{str(folder)!r} is a folder, which has no revisions; leave it out")
    if not (folder / INDEX).exists():
        raise ScheduleError(
            f"{str(folder)!r} is no shared folder: it has no {INDEX}, which save_pretrained writes"
        )
    content = read_file(folder / INDEX, "index", ScheduleError, most=_MOST)
    where = repr(str(folder))
    return Shared(where=where, index=Index.read(content, where), path_of=lambda f: folder / f)


def _repository(name: str, options: Download) -> Shared:
    path = downloaded(name, INDEX, options)
    content = read_file(path, "index", ScheduleError, most=_MOST)
    commit = path.parent.name  # all files are of one commit, whatever is pushed meanwhile
    fixed: Download = {**options, "revision": commit}
    return Shared(
        where=name,
        index=Index.read(content, name),
        path_of=lambda file: downloaded(name, file, fixed),
    )
