"""Schedules by the words of a command line: a file, a shared folder, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smoothcache_core import Schedule
from smoothcache_core.errors import CommandError
from smoothcache_core.schedule.sharing.hub import Download, is_repository


def opened(place: Path, speedup: float | None = None) -> Schedule:
    """Return the schedule that a command line names.

    Args:
        place: A schedule file, a shared folder, or a repository: `user/name`, `user/name@revision`.
        speedup: Least speed-up of what is chosen from a folder or repository.

    Raises:
        CommandError: A speed-up is asked for of a file.
        ScheduleError: It cannot be read, or has no such schedule.
    """
    return all_opened([place], speedup)[place]


def all_opened(places: Sequence[Path], speedup: float | None) -> dict[Path, Schedule]:
    """Return the schedules that a command line names; the speed-up is for those that are shared.

    Args:
        places: Schedule files, shared folders, repositories.
        speedup: Least speed-up of what is chosen from folders and repositories.

    Raises:
        CommandError: A speed-up is asked for, and all are files.
        ScheduleError: One cannot be read, or has no such schedule.
    """
    if speedup is not None and not any(is_shared(place) for place in places):
        raise CommandError(
            "--speedup chooses from a shared folder or a repository of the model hub, not from "
            f"{', '.join(repr(str(place)) for place in places)}"
        )
    return {
        place: _chosen(place, speedup) if is_shared(place) else Schedule.load(place)
        for place in places
    }


def is_shared(place: Path) -> bool:
    """Return whether a folder or a repository is meant, not a schedule file."""
    if place.exists():
        return place.is_dir()
    return place.suffix != ".json" and is_repository(str(place).partition("@")[0])


def _chosen(place: Path, speedup: float | None) -> Schedule:
    if place.is_dir():
        return Schedule.from_pretrained(place, speedup=speedup)
    name, _, revision = str(place).partition("@")
    options: Download = {"revision": revision} if revision else {}
    return Schedule.from_pretrained(name, speedup=speedup, **options)


def beside(place: Path, ending: str) -> Path:
    """Return a file beside a schedule file; of a folder or repository, in the working folder."""
    name = f"{place.stem}{ending}.json"
    return place.with_name(name) if place.is_file() or place.suffix == ".json" else Path(name)
