"""Normal equations of fills, summed over runs of live tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.least_squares import ridge_normal


class NormalEquations:
    """Inner products of regressors and target, in float64."""

    def __init__(self) -> None:
        self._normal: Array = np.zeros(0)
        self._right: Array = np.zeros(0)

    def add(self, regressors: Sequence[Tensor], target: Tensor) -> None:
        """Add the equations of one run: k regressors, (n,) each, and a target, (n,)."""
        basis = torch.stack([_double(each) for each in regressors])
        normal = (basis @ basis.T).cpu().numpy()
        right = (basis @ _double(target)).cpu().numpy()
        self._normal = normal if not self._normal.size else self._normal + normal
        self._right = right if not self._right.size else self._right + right

    def solve(self) -> Array:
        """Return the coefficients, (k,); see `ridge_normal`."""
        return ridge_normal(self._normal, self._right)


def _double(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU if its device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
