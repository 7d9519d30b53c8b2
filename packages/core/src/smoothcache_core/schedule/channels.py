"""Scales and shifts of channels: numbers of reused outputs that are too many for a JSON file.

Block Caching (arXiv 2312.03209, section 3.4) scales and shifts what it reuses, channel by channel.
The numbers are in a safetensors file beside the schedule, which says its name and its checksum.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field, InstanceOf, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays, save as save_arrays

from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import read_file, write_atomically
from smoothcache_core.schedule.values import Name, Positive, Text, Value

Array = np.ndarray[Any, np.dtype[np.float32]]

_MOST = 2**32  # bytes of a file: 60 sites of 3000 channels at 100 evaluations take 150 MB

FileName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}\.safetensors$")]
"""The name of a file beside the schedule; no path."""

Checksum = Annotated[Text, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, eq=False)
class Vectors:
    """The numbers themselves.

    Attributes:
        of_site: By path, one array for each tensor that the site gives: (skipped evaluations, 2,
            channels) float32, at each a scale of every channel and a shift, in ascending order of
            evaluations.
    """

    of_site: Mapping[str, Sequence[Array]]

    def encoded(self) -> bytes:
        """Return the content of the file: arrays by path and number of the tensor."""
        arrays = {
            f"{path}/{number}": np.ascontiguousarray(array, dtype=np.float32)
            for path, tensors in self.of_site.items()
            for number, array in enumerate(tensors)
        }
        return save_arrays(arrays)


class Channels(Value):
    """Which sites' reused outputs are scaled and shifted channel by channel, and by what.

    Attributes:
        file: Name of the file of the numbers, beside the schedule.
        sha256: Its checksum, in small hexadecimal digits.
        sites: By path, how many channels each tensor has that the site gives. At every skipped
            evaluation of the site's row the output computed last is scaled and shifted.
        vectors: The numbers; None until the file is read, as `Schedule.load` does.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    file: FileName
    sha256: Checksum
    sites: Annotated[
        Mapping[Name, Annotated[tuple[Positive, ...], Field(min_length=1)]], Field(min_length=1)
    ]
    vectors: InstanceOf[Vectors] | None = Field(default=None, exclude=True, repr=False)

    @classmethod
    def made(cls, of_site: Mapping[str, Sequence[Array]]) -> Self:
        """Return channels of these numbers; the file is named by its checksum.

        Args:
            of_site: As in `Vectors`, scales and shifts by path.

        Raises:
            ScheduleError: There are none.
        """
        vectors = Vectors(of_site)
        known = hashlib.sha256(vectors.encoded()).hexdigest()
        sites = {path: tuple(each.shape[-1] for each in some) for path, some in of_site.items()}
        return cls(
            file=f"channels-{known[:16]}.safetensors", sha256=known, sites=sites, vectors=vectors
        )

    def __eq__(self, other: object) -> bool:
        """Compare what files say, and whether the numbers were read: checksums tell the rest."""
        if not isinstance(other, Channels):
            return NotImplemented
        one, two = (
            (each.file, each.sha256, each.sites, each.vectors is None) for each in (self, other)
        )
        return one == two

    __hash__ = None  # mappings have none

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        if self.vectors is not None:
            found = {
                path: tuple(each.shape[-1] for each in tensors)
                for path, tensors in self.vectors.of_site.items()
            }
            if found != dict(self.sites):
                raise ValueError("its vectors are of other sites, or of other channels")
        return self

    def check_rows(self, row_of: Callable[[str], Sequence[int] | None]) -> None:
        """Refuse sites that have no row, and vectors of other evaluations than are skipped.

        Args:
            row_of: The row of a path; None if it has none of its own.

        Raises:
            ValueError: Says which.
        """
        for path in self.sites:
            row = row_of(path)
            if row is None or 0 not in row:
                raise ValueError(f"channels name {path!r}, which has no row that skips anything")
            for each in self.vectors.of_site[path] if self.vectors else ():
                if each.shape[:2] != (row.count(0), 2):
                    raise ValueError(
                        f"channels of {path!r} are vectors of shape {each.shape}, and its row "
                        f"skips {row.count(0)} evaluations"
                    )

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, 0 if they were not read; not among those of cached outputs."""
        if self.vectors is None:
            return 0
        return sum(each.nbytes for some in self.vectors.of_site.values() for each in some)

    def content(self) -> bytes:
        """Return the content of the file.

        Raises:
            ScheduleError: The numbers were not read.
        """
        return self.known().encoded()

    def known(self) -> Vectors:
        """Return the numbers.

        Raises:
            ScheduleError: They were not read.
        """
        if self.vectors is None:
            raise ScheduleError(
                f"this schedule scales and shifts outputs by the numbers in {self.file!r}, which "
                "were not read; load it from its file (Schedule.load), beside which they are"
            )
        return self.vectors

    def written(self, folder: Path) -> None:
        """Write the file into a folder, in one step.

        Args:
            folder: That of the schedule; made if it is not there.

        Raises:
            OutputError: It cannot be written.
            ScheduleError: The numbers were not read.
        """
        write_atomically(folder / self.file, self.content())

    def read(self, path: Path) -> Self:
        """Return it with the numbers of a file.

        Args:
            path: Where the file is.

        Raises:
            ScheduleError: The file is missing, or is not the one that the schedule was saved with.
        """
        content = read_file(path, "channels of the schedule", ScheduleError, most=_MOST)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ScheduleError(
                f"{str(path)!r} is not the file that its schedule was saved with: its checksum is "
                "another; it was changed or is incomplete"
            )
        try:
            arrays = load_arrays(content)
        except SafetensorError as error:
            raise ScheduleError(f"{str(path)!r} is no safetensors file: {error}") from None
        return self.changed(vectors=Vectors(self._sorted(arrays, path)))

    def _sorted(self, arrays: Mapping[str, Any], path: Path) -> dict[str, tuple[Array, ...]]:
        """Return arrays by site, after comparing them with what the schedule says."""
        wanted = {
            f"{site}/{number}": width
            for site, widths in self.sites.items()
            for number, width in enumerate(widths)
        }
        if set(arrays) != set(wanted):
            odd = sorted(set(arrays) ^ set(wanted))
            raise ScheduleError(f"{str(path)!r} and its schedule differ in arrays: {odd[:3]}")
        for name, width in wanted.items():
            array = arrays[name]
            good = array.dtype == np.float32 and array.ndim == 3 and array.shape[1:] == (2, width)
            if not good or not np.isfinite(array).all():
                raise ScheduleError(
                    f"{name!r} in {str(path)!r} is {array.dtype} of shape {array.shape}; it should "
                    f"be finite float32 of shape (evaluations, 2, {width})"
                )
        return {
            site: tuple(arrays[f"{site}/{number}"] for number in range(len(widths)))
            for site, widths in self.sites.items()
        }
