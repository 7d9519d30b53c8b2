"""What arrays of a calibration must be, each by itself. Names are those of the file format."""

from collections.abc import Sequence

import numpy as np

from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array, Indices
from smoothcache_core.numerics.reproducible_sum import is_cut, joined

_ROUNDING = 1e-6
"""Relative: what inner products in float64 may differ by from what they are exactly, and more."""


_PART = 2.0**-40
"""Absolute: far above the 2^-57 that the parts of a sum are precise to, for 2^17 samples of it."""


_BELOW_ZERO = 1e-6
"""Of the largest eigenvalue of a Gram matrix: how far below 0 the least may be. Rounding makes
1e-15 of it."""


def check_numbers(name: str, values: Array, shape: Sequence[int]) -> None:
    """Refuse what are no finite float64 numbers of a shape.

    Args:
        name: Name of the array.
        values: The array to look at.
        shape: What its shape must be.

    Raises:
        CalibrationError: The type, the shape or a number is another.
    """
    check_shape(name, values, shape)
    broken = ~np.isfinite(values)
    if broken.any():
        raise CalibrationError(
            f"{int(broken.sum())} of {values.size} numbers in {name!r} are NaN or infinite"
        )


def check_shape(name: str, values: Array, shape: Sequence[int]) -> None:
    """Refuse an array of another type or shape; see `check_numbers`.

    Raises:
        CalibrationError: It is another.
    """
    if values.dtype != np.float64:
        raise CalibrationError(f"{name!r} is of {values.dtype}, not of float64")
    if values.shape != tuple(shape):
        raise CalibrationError(f"{name!r} has shape {values.shape}, not {tuple(shape)}")


def check_sums(name: str, parts: Array, shape: Sequence[int], *, signed: bool = False) -> None:
    """Refuse what are no exact sums: parts (3, *shape), multiples of the unit of each.

    Args:
        name: Name of the array.
        parts: The array to look at.
        shape: Shape of the sums.
        signed: Whether sums may be below 0.

    Raises:
        CalibrationError: They are no such sums.
    """
    check_numbers(name, parts, (3, *shape))
    if not is_cut(parts):
        raise CalibrationError(f"{name!r} holds no parts of exact sums")
    if not signed and (joined(parts) < 0.0).any():
        raise CalibrationError(f"{name!r} has sums below 0, which it cannot have")


def check_counts(name: str, counts: Indices, shape: Sequence[int], sums: Array) -> None:
    """Refuse what are no numbers of measurements, or go with sums of nothing.

    Args:
        name: Name of the array.
        counts: The array to look at.
        shape: What its shape must be.
        sums: What was summed so often, (3, *shape).

    Raises:
        CalibrationError: They are no such numbers.
    """
    if counts.dtype != np.int64 or counts.shape != tuple(shape):
        raise CalibrationError(
            f"{name!r} has shape {counts.shape} of {counts.dtype}, not {tuple(shape)} of integers"
        )
    if (counts < 0).any():
        raise CalibrationError(f"{name!r} has numbers below 0, which it cannot have")
    if sums[:, counts == 0].any():
        raise CalibrationError(f"{name!r} is 0 where something was summed")


def whole(name: str, values: Array) -> Indices:
    """Return integers that a file holds as float64.

    Args:
        name: Name of the array.
        values: The array to look at.

    Raises:
        CalibrationError: They are no integers.
    """
    check_numbers(name, values, values.shape)
    if (values != np.round(values)).any() or (np.abs(values) > 2.0**53).any():
        raise CalibrationError(f"{name!r} has numbers that are no integers")
    return values.astype(np.int64)


def check_products(name: str, both: Array, one: Array, other: Array) -> None:
    """Refuse inner products that are larger than lengths of vectors allow (Cauchy-Schwarz).

    Args:
        name: Name of the array.
        both: Inner products of two vectors.
        one: Squared lengths of the one, at least 0; as `both`, or to be broadcast to it.
        other: Squared lengths of the other, likewise.

    Raises:
        CalibrationError: One is larger.
    """
    if (np.abs(both) > (1.0 + _ROUNDING) * np.sqrt(one * other) + _PART).any():
        raise CalibrationError(f"{name!r} holds products that no outputs can have")


def check_symmetric(name: str, gram: Array) -> None:
    """Refuse what is not symmetric, (n, n), or has a number below 0 on its diagonal.

    Args:
        name: Name of the array.
        gram: The array to look at.

    Raises:
        CalibrationError: It is so.
    """
    sizes = np.diagonal(gram)
    scale = np.sqrt(np.maximum(np.multiply.outer(sizes, sizes), 0.0))
    if (sizes < 0.0).any() or (np.abs(gram - gram.T) > _ROUNDING * scale + _PART).any():
        raise CalibrationError(f"{name!r} is not symmetric with squares on its diagonal")


def check_gram(name: str, gram: Array) -> None:
    """Refuse what are no products of vectors with one another, (n, n).

    Args:
        name: Name of the array.
        gram: The array to look at; symmetric.

    Raises:
        CalibrationError: An eigenvalue is well below 0.
    """
    eigenvalues = np.linalg.eigvalsh((gram + gram.T) / 2.0)
    if eigenvalues[0] < -_BELOW_ZERO * eigenvalues[-1]:
        raise CalibrationError(f"{name!r} holds products that no vectors can have")
