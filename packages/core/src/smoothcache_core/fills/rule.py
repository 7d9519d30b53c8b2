"""What a fill rule is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smoothcache_core.numerics.arrays import Array


class Coefficients(Protocol):
    """Gives the coefficients of fills, for many at once."""

    def __call__(self, grams: Array, places: Array) -> Array:
        """Return coefficients (..., k) of the k outputs computed last, the newest first.

        Args:
            grams: Inner products (..., k + 1, k + 1) of the wanted output and the computed ones.
            places: Where the outputs are on the axis of evaluations, (..., k + 1), same order.
        """
        ...


@dataclass(frozen=True)
class FillRule:
    """A way to make skipped outputs.

    Where it is planned what to skip, what a rule leaves is predicted from the two newest outputs at
    most: the dynamic programme knows the output computed last and the one before it, and a third
    would make its table as much larger again. So rules of 3 terms are planned on histories of 2;
    the coefficients of the schedule, and its predicted error, are of all 3.

    Attributes:
        name: Its name, recorded in schedules, such as `"linear-2"`.
        terms: The most computed outputs that it combines, 1 to `MOST_TERMS`; fewer are there at the
            first skipped evaluations.
        coefficients: Gives the coefficients from inner products and places of the outputs, for many
            fills at once; see `Coefficients`.
    """

    name: str
    terms: int
    coefficients: Coefficients


def residual(grams: Array, coefficients: Array) -> Array:
    """Return the root mean square of what a fill leaves, (...).

    Args:
        grams: Inner products (..., k + 1, k + 1) of the wanted output and the k computed ones,
            divided by the number of their entries.
        coefficients: Coefficients of the computed outputs, (..., k).

    Returns:
        (...), at least 0: the root mean square of y - sum_j c_j x_j, by the inner products alone.
    """
    signed = np.concatenate((np.ones_like(coefficients[..., :1]), -coefficients), axis=-1)
    squares = np.einsum("...i,...ij,...j->...", signed, grams, signed)
    return np.sqrt(np.maximum(squares, 0.0))


def rounded(coefficients: Array | Sequence[float]) -> tuple[float, ...]:
    """Return coefficients with as many digits as float32 has, which keeps files short.

    Args:
        coefficients: Coefficients of one fill, (k,).
    """
    return tuple(float(f"{value:.8g}") for value in coefficients)
