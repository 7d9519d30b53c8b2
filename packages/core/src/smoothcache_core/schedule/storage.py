"""How kept outputs are stored, where it is not as they were computed."""

import math
from types import MappingProxyType
from typing import Literal

from smoothcache_core.schedule.values import Value

StoredType = Literal["float16", "bfloat16", "float8_e4m3fn"]

_BYTES = MappingProxyType(
    {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
)

_BITS: MappingProxyType[StoredType, int] = MappingProxyType(
    {"float16": 11, "bfloat16": 8, "float8_e4m3fn": 4}
)
"""Significant bits of a number, the first of which is not stored."""

_MEAN_SQUARE = 1.5 / math.log(2.0)
"""Mean square of mantissas in [1, 2) that are evenly spread on a logarithmic scale."""


def width_of(dtype: str | None) -> int | None:
    """Return the bytes of one entry of a data type.

    Args:
        dtype: Such as `"float32"`; None if it is not known.
    """
    return _BYTES.get(dtype or "")


class Storage(Value):
    """Where and in which data type outputs are kept until they are used.

    Example:
        Half the memory, in that of the CPU:

        >>> smaller = schedule.changed(storage=Storage(place="cpu", dtype="bfloat16"))
        >>> smaller.predicted_bytes() / schedule.predicted_bytes()
        0.5

    Attributes:
        place: The model's `"device"`, or the memory of the `"cpu"`: outputs are copied there and
            back beside the computation, through pinned memory where the device is CUDA's.
        dtype: What floating outputs of a wider data type are rounded to; None for none. Those of
            `"float8_e4m3fn"`, and what is too large for `"float16"`, are scaled by their largest
            entry.
    """

    place: Literal["device", "cpu"] = "device"
    dtype: StoredType | None = None

    @property
    def is_plain(self) -> bool:
        """Whether outputs are kept as they were computed."""
        return self.place == "device" and self.dtype is None

    def share(self, width: float | None) -> float:
        """Return the bytes that are stored over those that were computed, in (0, 1].

        Args:
            width: Bytes of one entry as it was computed; None if that is not known.
        """
        if width is None or self.dtype is None:
            return 1.0
        return min(_BYTES[self.dtype] / width, 1.0)

    def rounding(self, width: float | None) -> float:
        """Return the relative error of what is stored, as a root mean square; 0 if it is exact.

        Rounding to nearest is off by up to half of the last place, evenly spread; numbers are
        taken to be evenly spread on a logarithmic scale.

        Args:
            width: Bytes of one entry as it was computed; None if that is not known.
        """
        if self.dtype is None or self.share(width) == 1.0:
            return 0.0
        return 2.0 ** (1 - _BITS[self.dtype]) / math.sqrt(12.0 * _MEAN_SQUARE)
