"""Writing a shared folder: schedules, an index and a card; on the disk or on the model hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothcache_core.errors import ScheduleError, warn
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.schedule.content import Content
from smoothcache_core.schedule.sharing.card import CARD, card
from smoothcache_core.schedule.sharing.hub import Before, Upload, uploaded
from smoothcache_core.schedule.sharing.index import (
    INDEX,
    Entry,
    Index,
    Measured,
    checksum,
    entry_of,
)

_SAME = ("model_class", "config_hash", "evaluations", "solver")
"""Fields of fingerprints in which schedules of one folder agree: they are for one run of one model,
so that a speed-up is all there is to choose."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card says besides what schedules say themselves.

    Attributes:
        base_model: Name of the model that the schedules are for, as on the model hub.
        package: The package whose lines the card shows, such as `"smoothcache-image"`.
        measured: What an evaluation measured of schedules, by their names.
        pictures: PNG files that the card shows, by their file names.
    """

    base_model: str | None = None
    package: str | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict[str, Measured])
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


def save_shared(folder: str | Path, schedules: Mapping[str, Content], about: About) -> Path:
    """Write a shared folder, the index last, and return it.

    Schedules that only the index of before named are removed, unless they were changed since.

    Raises:
        ScheduleError: The schedules cannot be shared together.
        OutputError: The folder or a file cannot be written.
    """
    files = _files(schedules, about, where=Path(folder).resolve().name)
    check_output(folder, folder=True)
    place = Path(folder)
    old = _old_entries((place / INDEX).read_bytes() if (place / INDEX).exists() else b"")
    for name, content in files.items():
        write_atomically(place / name, content)
    for entry in old:
        if entry.file not in files and _is_unchanged(place / entry.file, entry):
            (place / entry.file).unlink()
    return place


def _is_unchanged(file: Path, entry: Entry) -> bool:
    return file.exists() and checksum(file.read_bytes()) == entry.sha256


def push_shared(
    repository: str, schedules: Mapping[str, Content], about: About, options: Upload
) -> str:
    """Write a shared folder into a repository in one commit, and return the commit's address.

    Schedules that only the index of before named are deleted in the same commit.

    Raises:
        ScheduleError: The schedules cannot be shared together.
        OutputError: The repository cannot be written.
    """
    files = _files(schedules, about, where=repository)

    def outdated(before: Before) -> set[str]:
        old = _old_entries(before.read(INDEX) if INDEX in before.files else b"")
        return {entry.file for entry in old if entry.file in before.files} - set(files)

    return uploaded(repository, files, options, outdated)


def _old_entries(index: bytes) -> Sequence[Entry]:
    """Return what the index of before names, which the new one does not bring back.

    Args:
        index: What its file holds; empty if there is none.
    """
    try:
        return Index.read(index, "before").schedules if index else ()
    except ScheduleError as problem:
        warn(f"what was shared before is left there, next to what is new: {problem}")
        return ()


def _files(schedules: Mapping[str, Content], about: About, *, where: str) -> dict[str, bytes]:
    """Return all files of a shared folder by name; the index comes last."""
    _check_together(schedules)
    _check_named(about, schedules)
    entries = [entry_of(k, each, about.measured.get(k)) for k, each in schedules.items()]
    index = Index(base_model=about.base_model, schedules=tuple(entries))
    text = card(index, schedules, where=where, package=about.package, pictures=list(about.pictures))
    documents = {e.file: schedules[e.name].to_json().encode() for e in entries}
    channels = [one for each in schedules.values() if (one := each.channels)]
    numbers = {each.file: each.content() for each in channels}
    last = {CARD: text.encode(), INDEX: index.to_json().encode()}
    return {**numbers, **documents, **about.pictures, **last}


def _check_together(schedules: Mapping[str, Content]) -> None:
    """Refuse schedules of several models or runs."""
    if not schedules:
        raise ScheduleError("there is no schedule to share")
    (first, one), *others = schedules.items()
    for name, other in others:
        for which in _SAME:
            a, b = (_known(each, which) for each in (one, other))
            if None not in (a, b) and a != b:
                raise ScheduleError(
                    f"schedules that are shared together are for the same run of one model: "
                    f"{which} of {first!r} is {a!r}, of {name!r} {b!r}"
                )


def _known(schedule: Content, field: str) -> Any:
    return schedule.evaluations if field == "evaluations" else getattr(schedule.fingerprint, field)


def _check_named(about: About, schedules: Mapping[str, Content]) -> None:
    strangers = [name for name in about.measured if name not in schedules]
    if strangers:
        raise ScheduleError(f"{strangers} are measured, but not shared: {list(schedules)} are")
    for name in about.pictures:
        if Path(name).name != name or not name.endswith(".png"):
            raise ScheduleError(f"a picture has a file name like 'samples.png', got {name!r}")


def names_of(schedules: Sequence[Content]) -> list[str]:
    """Return names for schedules: `schedule-2.00x` by the speed-up, cut off, not rounded up."""
    names: list[str] = []
    for schedule in schedules:
        known = schedule.has_compute
        end = f"-{int(100 / schedule.compute_fraction()) / 100:.2f}x" if known else ""
        stem, number = f"schedule{end}", 1
        name = stem
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names
