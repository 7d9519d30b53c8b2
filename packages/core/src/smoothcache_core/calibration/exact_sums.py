"""What was learned of the exact solution of calibrated runs, summed over samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smoothcache_core.calibration.checks import check_gram, check_sums, check_symmetric
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import joined

_PRODUCTS, _ERRORS = "dynamics.exact", "dynamics.exact_errors"
"""Keys of the arrays in calibration files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactSums:
    """Statistics of exact solutions beside their plain runs, as sums of exact parts.

    The vectors of the exact solution are X_1 ... X_E, its latents after every evaluation, then for
    every conditioning pass Y_0 ... Y_{E-1}, what the denoiser gives on X_0 ... X_{E-1}; X_0 is the
    plain run's. So there are m = E (1 + parts) of them.

    Attributes:
        products: Sums over samples of the mean products of the entries of these vectors with the n
            vectors of the plain run, see `Dynamics.gram`, and then with one another, (3, m, n + m).
        errors: Sums over samples of relative L2 errors of the final latent, (3, 2): by how much the
            exact solution may itself be off; and how far the plain run is from it.
    """

    products: Array
    errors: Array

    def check(self, gram: Array, evaluations: int, parts: int) -> None:
        """Refuse what does not go with what was measured of the plain runs.

        Args:
            gram: Sums of products of the plain runs' vectors, (n, n).
            evaluations: Evaluations of a run.
            parts: Conditioning passes of one.

        Raises:
            CalibrationError: It does not, or holds numbers that it cannot have.
        """
        count = evaluations * (1 + parts)
        check_sums(_PRODUCTS, self.products, (count, len(gram) + count), signed=True)
        check_sums(_ERRORS, self.errors, (2,))
        whole = self.with_plain(gram)
        check_symmetric(_PRODUCTS, whole)
        check_gram(_PRODUCTS, whole)

    def with_plain(self, gram: Array) -> Array:
        """Return the products of the plain run's vectors and these, (n + m, n + m).

        Args:
            gram: Those of the plain run's vectors with one another, (n, n), summed likewise.
        """
        own = joined(self.products)
        beside = own[:, : len(gram)]
        return np.block([[gram, beside.T], [own]])

    def doubt(self, samples: int) -> float:
        """Return by how much the exact solution may be off, mean relative L2 of its final latent.

        Args:
            samples: Number of samples summed.
        """
        return float(joined(self.errors)[0]) / samples

    def distance(self, samples: int) -> float:
        """Return how far the plain run is from it, mean relative L2 of the final latent.

        Args:
            samples: Number of samples summed.
        """
        return float(joined(self.errors)[1]) / samples

    @classmethod
    def merge(cls, parts: Sequence[Self | None]) -> Self | None:
        """Return the sums of all parts; None if none has any.

        Raises:
            CalibrationError: Only some have.
        """
        known = [part for part in parts if part is not None]
        if not known:
            return None
        if len(known) < len(parts):
            raise CalibrationError(
                "cannot merge calibrations: some were measured beside the exact solution, others "
                'were not; calibrate all with reference="exact", or none'
            )
        return cls(
            products=np.sum([part.products for part in known], axis=0),
            errors=np.sum([part.errors for part in known], axis=0),
        )

    def arrays(self) -> dict[str, Array]:
        """Return everything as arrays, for a file."""
        return {_PRODUCTS: self.products, _ERRORS: self.errors}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self | None:
        """Return what `arrays` gave; None if they hold nothing of it."""
        if _PRODUCTS not in arrays:
            return None
        return cls(products=arrays[_PRODUCTS], errors=arrays[_ERRORS])
