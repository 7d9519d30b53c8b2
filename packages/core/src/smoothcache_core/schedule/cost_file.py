"""Costs at one size as a file, for plans of another size than was calibrated."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from smoothcache_core.documents import read_document
from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import write_atomically
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.values import Value


class CostFile(Value):
    """What one evaluation costs at a size, for one or several levels of sites.

    Attributes:
        format: Name of the file format, always `"smoothcache-cost"`.
        version: Version of the file format.
        costs: A cost for each level of sites: parts, blocks, spans.
    """

    format: Literal["smoothcache-cost"] = "smoothcache-cost"
    version: Literal[1] = 1
    costs: tuple[Cost, ...] = Field(min_length=1)

    def save(self, path: str | Path) -> Path:
        """Write the file, in one step.

        Args:
            path: Where to; folders that are not there are made.

        Returns:
            The path.
        """
        return write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Args:
            path: A JSON file.

        Raises:
            ScheduleError: The file is missing, or is no such file.
        """
        document = read_document(path, "cost file", ScheduleError)
        if not isinstance(document, dict):
            raise ScheduleError(f"{str(path)!r} holds a {type(document).__name__}, not costs")
        return cls.of(document)
