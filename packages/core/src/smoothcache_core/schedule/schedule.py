"""Schedules: for each site and evaluation, compute or fill. Immutable, validated, portable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from smoothcache_core.documents import read_document
from smoothcache_core.errors import ScheduleError, warn
from smoothcache_core.files import write_atomically
from smoothcache_core.schedule.content import Content
from smoothcache_core.schedule.fill import Fill as Fill  # where pickles of before look for it
from smoothcache_core.schedule.formats import FORMATS, format_named
from smoothcache_core.schedule.sharing.choosing import Wish, chosen
from smoothcache_core.schedule.sharing.hub import Download, Upload
from smoothcache_core.schedule.sharing.reading import shared
from smoothcache_core.schedule.sharing.writing import About, names_of, push_shared, save_shared


class Schedule(Content):
    """Which evaluations of which sites are computed, and how all others are filled.

    Example:
        Attention is reused at every other evaluation, all else is computed:

        >>> schedule = Schedule(evaluations=4, rows={"attn": (1, 0, 1, 0)})
        >>> path = schedule.save("schedule.json")
        >>> Schedule.load(path) == schedule
        True

    Attributes:
        format: Name of the file format, always `"smoothcache-schedule"`.
        version: Version of the file format; files of version 2 are read as well.
        evaluations: Denoiser evaluations of one run, per branch, at least 1.
        rows: For each key one entry per evaluation, 1 compute, 0 fill. A key is a site's path, a
            kind and block (`"attn-3"`) or a kind (`"attn"`); the most specific key wins, and a site
            without a key is always computed. Every row starts with 1. The key `"denoiser"` stands
            for the output of the whole model, with which there are no rows of sites; `"guidance"`
            for the guidance difference. Where that is filled, the unconditional pass is skipped,
            and sites give what the conditional pass alone needs.
        fills: For keys as in `rows`, how skipped outputs are made; without one the output computed
            last is reused.
        corrected: What the solver gets in place of computed outputs of the denoiser; None where
            that is the outputs themselves. `terms` has, for each computed evaluation that is
            corrected, the coefficient of its own output, then those of the outputs computed before
            it, the newest first, 1 to `MOST_TERMS` in all; `inputs` that of its latent. Fills and
            corrections are made of outputs as they were computed, never of corrected ones.
        source: How the schedule was made; `"imported"` if unknown.
        fingerprint: What it was planned for: a model that conflicts with it is refused.
        cost: MACs per site and in all, if known.
        prediction: Its predicted error, memory and time, if known.
        solver_steps: What the solver makes of the first outputs, by which a run with another
            solver, noise or guidance is told from the planned one; None if it is not known.
        storage: How outputs are kept; None for as they were computed.
        channels: Scales and shifts of reused outputs, channel by channel; None where there are
            none. They are in a file of their own beside the schedule, see `Channels`.

    Raises:
        ScheduleError: From every constructor, if the content is invalid.
    """

    if TYPE_CHECKING:  # rows may be lists, and all parts dictionaries

        def __init__(self, **data: Any) -> None: ...

    def save(self, path: str | Path) -> Path:
        """Write the schedule as JSON, in one step; before it the file of channels, if it has any.

        Args:
            path: Where to; folders that are not there are made.

        Returns:
            The path.

        Raises:
            OutputError: It cannot be written.
            ScheduleError: It has channels whose numbers were never read.
        """
        if self.channels is not None:
            self.channels.written(Path(path).parent)
        return write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path, *, format: str | None = None) -> Self:
        """Read a schedule file: this library's JSON, or one of another format, see `FORMATS`.

        Args:
            path: A JSON file.
            format: Name of the format, such as `"sglang"`; recognised if not given. Lists of 0 and
                1 do not say which is which: they are `"computed-list"` or `"cached-list"`.

        Raises:
            ScheduleError: The file is missing, is not JSON, or is not a valid schedule; or the file
                of its channels is not there, or not the one that it was saved with.
        """
        document = read_document(path, "schedule", ScheduleError)
        if format is None and not isinstance(document, dict):
            raise ScheduleError(f"{str(path)!r} holds a {type(document).__name__}, not a schedule")
        return cls.imported(document, format=format).with_numbers(Path(path).parent.joinpath)

    @classmethod
    def imported(cls, document: Any, *, format: str | None = None) -> Self:
        """Return the schedule that a document says, in this library's format or any of `FORMATS`.

        Example:
            >>> Schedule.imported([0, 1, 1], format="cached-list").rows["denoiser"]
            (1, 0, 0)

        Args:
            document: What a JSON file holds.
            format: Name of the format; recognised if not given.

        Raises:
            ScheduleError: There is no such format, none recognises it, or it is not valid.
        """
        if format is not None:
            other = format_named(format)
            if not other.takes(document):
                raise ScheduleError(f"this is not {other.title}, but a {type(document).__name__}")
            return cls.of(other.read(document))
        if isinstance(document, Mapping) and "format" in document:
            return cls.of(document)
        for other in FORMATS:
            if other.recognises(document):
                return cls.of(other.read(document))
        raise ScheduleError(f"a {type(document).__name__} is no schedule in any known format")

    def exported(self, name: str) -> Any:
        """Return the document of this schedule in one of `FORMATS`.

        Where the format cannot say how skipped outputs are made, and this schedule does, a
        `SmoothCacheWarning` says that they are lost.

        Example:
            >>> Schedule(evaluations=2, rows={"attn": (1, 0)}).exported("smoothcache-v1")
            {'attn': [1, 0]}

        Args:
            name: Name of the format, such as `"smoothcache-v1"` or `"cache-dit"`.

        Raises:
            ScheduleError: There is no such format, or it cannot say what the schedule says.
        """
        other = format_named(name)
        document = other.write(dict(self))
        if (self.fills or self.corrected or self.channels) and not other.keeps_fills:
            message = (
                f"{other.title} says which evaluations are computed, and not how others are made: "
                "the coefficients of this schedule are lost, and its predicted error with them"
            )
            warn(message)
        return document

    # ------------------------------------------------------------------ shared folders

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        *,
        speedup: float | None = None,
        compute: float | None = None,
        error: float | None = None,
        name: str | None = None,
        **options: Unpack[Download],
    ) -> Self:
        """Return the schedule that suits, of a shared folder or a repository of the model hub.

        For `speedup` and `compute` it is the one of the least error among those that are so fast,
        for `error` the one of the least compute among those that keep to it. Errors are measured
        ones where there are any, else predicted ones.

        Example:
            >>> folder = schedule.save_pretrained("shared", base_model="me/my-model")
            >>> Schedule.from_pretrained(folder) == schedule
            True
            >>> Schedule.from_pretrained(folder, speedup=1.5) == schedule
            True

        Args:
            place: A folder that `save_pretrained` wrote, or a repository such as `"user/name"`.
            speedup: Least speed-up by MACs, at least 1.
            compute: Largest fraction of the plain run's MACs, in (0, 1].
            error: Largest relative L2 error, above 0.
            name: Name of the schedule itself. Without any of the four there must be one only.
            options: Of a repository: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ScheduleError: It cannot be read, none suits, or the file is not what the index says.
        """
        wish = Wish(speedup=speedup, compute=compute, error=error, name=name)
        found = shared(place, options)
        schedule = cls.of(found.document(chosen(found.index, wish, found.where)))
        return schedule.with_numbers(found.path_of)

    def save_pretrained(
        self, folder: str | Path, *, name: str | None = None, base_model: str | None = None
    ) -> Path:
        """Write a shared folder of this one schedule; `Front` writes several.

        Args:
            folder: Where to; made if it is not there. Schedules that it shared before are replaced.
            name: Name of the schedule; by its speed-up if not given, such as `"schedule-2.00x"`.
            base_model: Name of the model that it is for, as on the model hub.

        Returns:
            The folder.

        Raises:
            ScheduleError: The name is no name of a file.
            OutputError: The folder cannot be written.
        """
        return save_shared(folder, self._named(name), About(base_model=base_model))

    def push_to_hub(
        self,
        repository: str,
        *,
        name: str | None = None,
        base_model: str | None = None,
        **options: Unpack[Upload],
    ) -> str:
        """Write a shared folder of this one schedule into a repository of the model hub.

        It takes the place of all that were shared there before; `Front` shares several.

        Args:
            repository: Name of the repository; made if it is not there.
            name: Name of the schedule; by its speed-up if not given, such as `"schedule-2.00x"`.
            base_model: Name of the model that it is for, as on the model hub.
            options: `private`, `token`, `revision`, `commit_message`, `create_pr`.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ScheduleError: The name is no name of a file.
            OutputError: The repository cannot be written; what was there is as it was.
        """
        return push_shared(repository, self._named(name), About(base_model=base_model), options)

    def with_numbers(self, path_of: Callable[[str], Path]) -> Self:
        """Return the schedule with the numbers of its channels, if it has any.

        Args:
            path_of: Returns where a file beside the schedule is.
        """
        if self.channels is None:
            return self
        return self.changed(channels=self.channels.read(path_of(self.channels.file)))

    def _named(self, name: str | None) -> dict[str, Self]:
        return {names_of([self])[0] if name is None else name: self}
