"""What a solver makes of the denoiser's outputs, as numbers."""

from dataclasses import dataclass

import numpy as np

from smoothcache_core.calibration.checks import check_numbers
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array

_NOT_ONE = 1e-6  # far above the rounding of a division


@dataclass(frozen=True, kw_only=True, eq=False)
class Response:
    """The affine answer of a solver.

    Attributes:
        matrix: (E, E), lower triangular: [i, j] is the change of the latent of evaluation i + 1 (of
            the final sample for i = E - 1) per change of the guided output of evaluation j.
        weights: (E, parts): guidance as a weighting of the conditioning passes; rows sum to 1.
        residual: What the fit leaves of the changes, relative L2, from 0 to 1; about 0 for an
            affine solver.

    Raises:
        CalibrationError: The arrays do not go together, or have numbers that they cannot have.
    """

    matrix: Array
    weights: Array
    residual: float

    def __post_init__(self) -> None:
        evaluations, parts = check_pair(self.matrix, self.weights)
        check_numbers("dynamics.matrix", self.matrix, (evaluations, evaluations))
        check_numbers("dynamics.weights", self.weights, (evaluations, parts))
        if np.triu(self.matrix, 1).any():
            raise CalibrationError("'dynamics.matrix' lets an evaluation act on those before it")
        if (np.abs(self.weights.sum(axis=1) - 1.0) > _NOT_ONE).any():
            raise CalibrationError("'dynamics.weights' has rows that do not sum to 1")
        if not 0.0 <= self.residual <= 1.0:
            raise CalibrationError(f"the residual of a fit is from 0 to 1, got {self.residual}")

    @property
    def knows_end(self) -> bool:
        """Whether the final sample was seen; without it the last evaluation has no known effect."""
        return bool(self.matrix[-1].any())


def check_pair(matrix: Array, weights: Array) -> tuple[int, int]:
    """Return how many evaluations and conditioning passes two arrays are of.

    Raises:
        CalibrationError: They are of none.
    """
    if weights.ndim != 2 or not weights.size or matrix.ndim != 2:
        raise CalibrationError(
            "'dynamics.matrix' and 'dynamics.weights' are (evaluations, evaluations) and "
            f"(evaluations, passes), got {matrix.shape} and {weights.shape}"
        )
    return weights.shape[0], weights.shape[1]
