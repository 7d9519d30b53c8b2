"""The index of a shared folder: what its schedules compute and how far they are off.

A reader of the index chooses before it fetches a schedule, and knows by the checksum that it has
the one that was chosen.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from smoothcache_core.documents import json_text, parsed
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.content import Content
from smoothcache_core.schedule.values import (
    NonNegative,
    Number,
    Positive,
    Text,
    Value,
)

INDEX = "smoothcache-index.json"
"""Name of the index file of a shared folder."""


FORMAT, VERSION = "smoothcache-index", 1


_LONGEST = 100  # characters of a name: with `.json` it is a name on any file system


def _plain(name: str) -> str:
    """Refuse what is no plain name of a file, on any system; so no name leaves the folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) or len(name) > _LONGEST:
        raise ValueError(
            f"a name has up to {_LONGEST} letters, digits and . _ + -, and begins with a letter or "
            f"digit, got {name!a}"
        )
    return name


FileName = Annotated[Text, AfterValidator(_plain)]
"""A name that is that of a file in a folder, without its suffix."""


class Estimate(Value):
    """An error, and what it lies between.

    Attributes:
        error: Relative L2 error of the final sample, at least 0.
        low: Lower end of the 95 % confidence interval of `error`, if known.
        high: Upper end of that interval, if known.
    """

    error: NonNegative
    low: NonNegative | None = None
    high: NonNegative | None = None


class Measured(Estimate):
    """What an evaluation measured of a schedule, on seeds that it was not made with.

    Attributes:
        samples: Samples that it was measured on, at least 1.
        speedup: Seconds of the plain run over those of the cached one, if they were measured.
        device: What that ran on.
    """

    samples: Positive
    speedup: Annotated[Number, Field(gt=0)] | None = None
    device: Text | None = None


class Entry(Value):
    """One schedule of a shared folder. The file of `"half"` is `half.json`.

    Attributes:
        name: Its name in the folder.
        sha256: Checksum of the file.
        compute: MACs over those of the plain run, in (0, 1]; None if they are not known.
        predicted: The error that the schedule promises, if it does.
        measured: What an evaluation measured, if there was one.
    """

    name: FileName
    sha256: Annotated[Text, Field(pattern="^[0-9a-f]{64}$")]
    compute: Annotated[Number, Field(gt=0, le=1)] | None = None
    predicted: Estimate | None = None
    measured: Measured | None = None

    @property
    def file(self) -> str:
        """Name of the file of the schedule."""
        return f"{self.name}.json"

    @property
    def speedup(self) -> float | None:
        """Plain MACs over computed ones: the speed-up if time were MACs alone."""
        return None if self.compute is None else 1.0 / self.compute

    @property
    def known(self) -> Estimate | None:
        """The error to choose by: the measured one, else the promised one."""
        return self.measured or self.predicted


def entry_of(name: str, schedule: Content, measured: Measured | None = None) -> Entry:
    """Return what the index says of a schedule.

    Args:
        name: Its name in the folder.
        schedule: What is shared.
        measured: What an evaluation measured of it.

    Raises:
        ScheduleError: The name is no name of a file.
    """
    promise = schedule.prediction
    fields = {} if promise is None else {k: getattr(promise, k) for k in ("error", "low", "high")}
    return Entry(
        name=name,
        sha256=checksum(schedule.to_json().encode()),
        compute=schedule.compute_fraction() if schedule.has_compute else None,
        predicted=Estimate.of(fields) if fields else None,
        measured=measured,
    )


def checksum(content: bytes) -> str:
    """Return the checksum by which files are compared, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Index(Value):
    """All schedules of a shared folder.

    Attributes:
        format: Name of the file format, always `"smoothcache-index"`.
        version: Version of the file format.
        base_model: Name of the model that they are for, as on the model hub, if it was told.
        schedules: What there is to choose from, at least one.
    """

    format: Text = FORMAT
    version: int = VERSION
    base_model: Text | None = None
    schedules: Annotated[tuple[Entry, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _check_format(cls, data: Any) -> Any:
        """Say of which format it is, before saying what of this one it lacks."""
        told = data.get("format", FORMAT), data.get("version", VERSION)
        if told[0] != FORMAT:
            raise ValueError(f"the format is {FORMAT!r}, got {told[0]!a}")
        if type(told[1]) is not int or told[1] != VERSION:
            raise ValueError(
                f"version {told[1]!a} of the format is not known here, only {VERSION}; a newer "
                "smoothcache-core may know it"
            )
        return data

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [entry.name.lower() for entry in self.schedules]  # some file systems ignore case
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"schedules need different names, got {sorted(twice)} more than once")
        return self

    def to_json(self) -> str:
        """Return the index as JSON."""
        return json_text(json.loads(self.model_dump_json(exclude_none=True)), _on_one_line) + "\n"

    @classmethod
    def read(cls, content: bytes, where: str) -> Self:
        """Return the index that a file holds.

        Args:
            content: What the file holds, UTF-8.
            where: What it is the index of, for the message.

        Raises:
            ScheduleError: It is no JSON, of another version, or not valid.
        """
        try:
            document = parsed(content)
        except ValueError as problem:
            raise ScheduleError(f"{INDEX} of {where} is not a JSON file: {problem}") from problem
        if not isinstance(document, dict):
            raise ScheduleError(f"{INDEX} of {where} holds a {type(document).__name__}, no index")
        try:
            return cls.of(document)
        except ScheduleError as problem:
            raise ScheduleError(f"{INDEX} of {where} cannot be used: {problem}") from problem


def _on_one_line(path: tuple[str, ...], value: Any) -> bool:
    """Whether a part of the file stands on one line: errors do."""
    del value
    return path[-1:] in (("predicted",), ("measured",))
