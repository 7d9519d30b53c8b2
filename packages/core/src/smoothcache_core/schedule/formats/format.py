"""What a file format of schedules is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format of another program, or of an older version.

    It translates documents, which are what a JSON file holds, and knows nothing of models. What
    `read` returns is validated as a `Schedule`, so `read` checks only what would be misunderstood.

    Attributes:
        name: Name by which a user asks for it.
        title: What it is called in messages.
        recognises: Whether a document is of this format.
        read: Gives the fields of a `Schedule` from a document; raises `ScheduleError`.
        write: Gives the document from a schedule, a mapping of the fields of `Schedule`; raises
            `ScheduleError` where the format cannot say what the schedule says.
        keeps_fills: Whether it says how skipped outputs are made, or refuses schedules that do;
            where not, who exports is told.
        kinds: What a document is in Python.
    """

    name: str
    title: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any], Mapping[str, Any]]
    write: Callable[[Mapping[str, Any]], Any]
    keeps_fills: bool = True
    kinds: tuple[type, ...] = (dict,)

    def takes(self, document: Any) -> bool:
        """Return whether a document may be of this format, where somebody says that it is."""
        return isinstance(document, self.kinds) and (
            dict not in self.kinds or self.recognises(document)
        )
