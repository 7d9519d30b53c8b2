"""The file of a calibration: a safetensors file with one JSON header, and a checksum of both."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays, save as save_arrays

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.outcomes import Outcome
from smoothcache_core.documents import parsed
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.values import (
    Count,
    Flag,
    Integer,
    Name,
    Names,
    NonNegative,
    Positive,
    Seeds,
    Text,
    Value,
)

FORMAT = "smoothcache-calibration"


VERSION = 2
"""Version of the file format, see docs/file-formats.md."""


LARGEST_FILE = 2**34
"""Bytes of the largest file: a thousand sites of a thousand evaluations at 12 lags take 600 MB."""


_KEY = "smoothcache"  # of the header among the metadata of safetensors


_CHECKSUM = "checksum"


SiteEntry = tuple[Name, Name, Count, Literal["output", "delta"], tuple[Text, ...], Text]
"""Path, kind, block, target, inputs and last of a site."""


def _distinct_paths(sites: tuple[SiteEntry, ...]) -> tuple[SiteEntry, ...]:
    if len({site[0] for site in sites}) < len(sites):
        raise ValueError("a site occurs twice")
    return sites


class DynamicsHeader(Value):
    """What a header says of whole runs; see `Dynamics`."""

    samples: Positive
    response_seed: Integer
    conditional: Count | None
    residual: NonNegative
    seconds: NonNegative
    overwritten: Flag = False


class Header(Value):
    """Everything in a calibration that is no array; see `Calibration`."""

    format: Literal["smoothcache-calibration"]
    version: Literal[2]
    sites: Annotated[tuple[SiteEntry, ...], AfterValidator(_distinct_paths)]
    branches: Names
    samples: Positive
    seeds: Annotated[Seeds, Field(min_length=1)]
    fingerprint: Fingerprint
    cost: Cost
    dynamics: DynamicsHeader | None
    remark: Text
    coarser: tuple["Header", ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @classmethod
    def read(cls, document: Any) -> Self:
        """Return the header that a document says.

        Raises:
            CalibrationError: It is of another format or version.
            ScheduleError: It is not valid.
        """
        if not isinstance(document, Mapping):
            raise CalibrationError(f"its header is a {type(document).__name__}")
        known = document.get("format"), document.get("version")
        if known != (FORMAT, VERSION) or type(known[1]) is not int:
            raise CalibrationError(
                f"format {known[0]!r} version {known[1]!r}, expected {VERSION} of {FORMAT!r}"
            )
        return cls.of(document)

    def known_sites(self) -> tuple[Site, ...]:
        """Return the sites that it lists."""
        return tuple(
            Site(path=path, kind=kind, block=block, target=target, inputs=inputs, last=last)
            for path, kind, block, target, inputs, last in self.sites
        )


def encoded(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Return the content of a file.

    Args:
        header: What JSON can hold; all that is no array.
        arrays: Arrays by name.
    """
    # safetensors 0.8 writes memory as it lies, also that of a transposed array (its issue 825)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps({**header, _CHECKSUM: _digest(header, contiguous)})
    return save_arrays(contiguous, metadata={_KEY: text})


def decoded(content: bytes) -> tuple[Header, dict[str, Array]]:
    """Return the header and the arrays of a file, whose checksum is right if it has one.

    Raises:
        CalibrationError: The content is damaged, or no such file.
        ScheduleError: The header is not valid.
    """
    try:
        document = _header_of(content)
        arrays = load_arrays(content)
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise CalibrationError(str(error)) from error
    checksum = document.pop(_CHECKSUM, None) if isinstance(document, dict) else None
    header = Header.read(document)
    if checksum is not None and checksum != _digest(document, arrays):
        raise CalibrationError("its content is not what its checksum says; it was damaged")
    return header, arrays


def _header_of(content: bytes) -> Any:
    """Return the document that the metadata hold; only arrays of float64 are beside it.

    Raises:
        ValueError: The content is damaged, or no such file.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError(
            "it is not a safetensors file, or it is truncated; give a file that `calibrate` wrote"
        )
    entries = parsed(content[8 : 8 + length])
    metadata = entries.pop("__metadata__", None) if isinstance(entries, dict) else None
    if not isinstance(metadata, dict) or [*metadata] != [_KEY]:
        raise ValueError(f"its metadata are not {_KEY!r} alone")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("dtype") != "F64":
            raise ValueError(f"{name!r} is not of float64")
    text = metadata[_KEY]
    if not isinstance(text, str):
        raise ValueError(f"its header is a {type(text).__name__}")
    return parsed(text)


def _digest(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """Return a checksum of everything that a file says."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f8")
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
