"""What a solver makes of the denoiser's outputs, as numbers."""

from dataclasses import dataclass

from smoothcache_core.numerics.arrays import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Response:
    """The affine answer of a solver.

    Attributes:
        matrix: (E, E), lower triangular: [i, j] is the change of the latent of evaluation i + 1 (of
            the final sample for i = E - 1) per change of the guided output of evaluation j.
        weights: (E, parts): guidance as a weighting of the conditioning passes; rows sum to 1.
        residual: What the fit leaves of the changes, relative L2; about 0 for an affine solver.
    """

    matrix: Array
    weights: Array
    residual: float

    @property
    def knows_end(self) -> bool:
        """Whether the final sample was seen; without it the last evaluation has no known effect."""
        return bool(self.matrix[-1].any())
