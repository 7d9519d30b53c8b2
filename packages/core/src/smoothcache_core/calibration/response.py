"""What a solver makes of the denoiser's outputs, as numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

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

    def guided(self, outputs: Tensor) -> Tensor:
        """Return the guided outputs (E, n) of the outputs (E, parts, n)."""
        weights = torch.from_numpy(self.weights).to(outputs)
        return torch.einsum("ep,epn->en", weights, outputs)

    def drift(self, evaluation: int, changes: Tensor) -> Tensor:
        """Return the change of the latent of `evaluation`, (n,).

        Args:
            evaluation: From 0 to E, where E is the final sample.
            changes: Changes of the guided outputs made so far, (evaluation, n) or more.
        """
        if not evaluation:
            return torch.zeros_like(changes[0])
        row = torch.from_numpy(self.matrix[evaluation - 1, :evaluation]).to(changes)
        return row @ changes[:evaluation]
