"""Several schedules of one model, saved and shared together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, Unpack

from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.sharing.choosing import Wish, chosen
from smoothcache_core.schedule.sharing.hub import Download, Upload
from smoothcache_core.schedule.sharing.index import Index, Measured, entry_of
from smoothcache_core.schedule.sharing.reading import shared
from smoothcache_core.schedule.sharing.writing import About, names_of, push_shared, save_shared


@dataclass(frozen=True, kw_only=True)
class Front:
    """Several schedules of one model, for one run of it: faster ones, and closer ones.

    Example:
        >>> front = Front(schedules={"half": schedule}, base_model="me/my-model")
        >>> folder = front.save_pretrained("my-model-smoothcache")
        >>> Schedule.from_pretrained(folder, compute=0.5) == schedule
        True

    Attributes:
        schedules: Schedules by name; a name is that of a file, without `.json`.
        base_model: Name of the model that they are for, as on the model hub, if it has one.
        package: The package whose lines the card shows, such as `"smoothcache-image"`.
        measured: What an evaluation measured of them, by name, see `reports.measured_of`.
        pictures: PNG files that the card shows, by file name.

    Raises:
        ScheduleError: From `save_pretrained` and `push_to_hub`, if the schedules are for different
            runs, or a name is none of a file.
    """

    schedules: Mapping[str, Schedule]
    base_model: str | None = None
    package: str | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict[str, Measured])
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    @classmethod
    def of(cls, schedules: Sequence[Schedule], *, base_model: str | None = None) -> Self:
        """Return a front of schedules that are named by their speed-ups: `"schedule-2.00x"`.

        Args:
            schedules: Schedules of one run of one model.
            base_model: Name of the model that they are for.
        """
        names = names_of(schedules)
        return cls(schedules=dict(zip(names, schedules, strict=True)), base_model=base_model)

    @classmethod
    def from_pretrained(cls, place: str | Path, **options: Unpack[Download]) -> Self:
        """Return all schedules of a shared folder or a repository of the model hub.

        Args:
            place: A folder that `save_pretrained` wrote, or a repository such as `"user/name"`.
            options: Of a repository: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ScheduleError: It cannot be read, or is not what its index says.
        """
        found = shared(place, options)
        entries = found.index.schedules
        return cls(
            schedules={
                each.name: Schedule.of(found.document(each)).with_numbers(found.path_of)
                for each in entries
            },
            base_model=found.index.base_model,
            measured={each.name: each.measured for each in entries if each.measured is not None},
        )

    def choose(
        self,
        *,
        speedup: float | None = None,
        compute: float | None = None,
        error: float | None = None,
    ) -> Schedule:
        """Return the schedule that suits; see `Schedule.from_pretrained`.

        Args:
            speedup: Least speed-up by MACs, at least 1.
            compute: Largest fraction of the plain run's MACs, in (0, 1].
            error: Largest relative L2 error, above 0: measured, else predicted.

        Raises:
            ScheduleError: None suits; lists what there is.
        """
        wish = Wish(speedup=speedup, compute=compute, error=error)
        entries = [entry_of(k, each, self.measured.get(k)) for k, each in self.schedules.items()]
        return self.schedules[chosen(Index(schedules=tuple(entries)), wish, "this front").name]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a shared folder: the schedules, their index, and a card for people.

        Args:
            folder: Where to; made if it is not there. Schedules that it shared before are replaced.

        Returns:
            The folder.

        Raises:
            OutputError: It cannot be written.
        """
        return save_shared(folder, self.schedules, self._about)

    def push_to_hub(self, repository: str, **options: Unpack[Upload]) -> str:
        """Write the files of a shared folder into a repository of the model hub, in one commit.

        Schedules that were shared there before, and are none of these, are deleted by that commit.

        Args:
            repository: Name of the repository; made if it is not there.
            options: `private`, `token`, `revision`, `commit_message`, `create_pr`.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            OutputError: It cannot be written; what was there is as it was.
        """
        return push_shared(repository, self.schedules, self._about, options)

    @property
    def _about(self) -> About:
        return About(
            base_model=self.base_model,
            package=self.package,
            measured=self.measured,
            pictures=self.pictures,
        )
