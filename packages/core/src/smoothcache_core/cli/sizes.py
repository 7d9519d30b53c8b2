"""Sizes of memory, as a user gives them."""

import re
from types import MappingProxyType

_UNITS = MappingProxyType(
    {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
)


def parse_bytes(text: str | int) -> int:
    """Return the bytes that a text such as `"2GB"`, `"512 MiB"` or `"1000000"` means.

    Raises:
        ValueError: It is no positive size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise ValueError(f"{text!r} is no size; give bytes, or for example 500MB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2]])
