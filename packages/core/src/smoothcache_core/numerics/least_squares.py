"""Normal equations of fills, summed over runs."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array

_ENTRIES_PER_COEFFICIENT = 16


def check_enough(samples: int, entries: int, coefficients: int, *, verb: str) -> None:
    """Refuse to fit by too little.

    Args:
        samples: Samples to fit to.
        entries: Entries of one sample.
        coefficients: Coefficients of one fill.
        verb: What to do with more samples, for the message.

    Raises:
        ScheduleError: There are fewer than 16 entries for each coefficient.
    """
    wanted = coefficients * _ENTRIES_PER_COEFFICIENT
    if samples * entries < wanted:
        raise ScheduleError(
            f"{samples} samples of {entries} entries are too few for {coefficients} coefficients "
            f"per evaluation; {verb} with {math.ceil(wanted / entries)} samples or more"
        )


class Normal:
    """Inner products of regressors and target, in float64."""

    def __init__(self) -> None:
        self._normal: Array = np.zeros(0)
        self._right: Array = np.zeros(0)

    def add(self, regressors: Sequence[Tensor], target: Tensor) -> None:
        """Add the equations of one run: regressors of n entries each, and a target of as many."""
        basis = torch.stack([_double(each) for each in regressors])
        normal = (basis @ basis.T).cpu().numpy()
        right = (basis @ _double(target)).cpu().numpy()
        self._normal = normal if not self._normal.size else self._normal + normal
        self._right = right if not self._right.size else self._right + right

    def solve(self) -> Array:
        """Return the coefficients, see `ridge_normal`."""
        return ridge_normal(self._normal, self._right)


def _double(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU if its device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


RIDGE = 1e-6
"""Of the mean diagonal of the normal equations; pulls towards plain reuse."""


def ridge(regressors: Array, target: Array) -> Array:
    """Return the coefficients that combine `regressors` (k, n) to `target` (n,), (k,).

    Minimises |sum_j c_j r_j - t|^2 + r |c - e_0|^2 with r = `RIDGE` x the mean of |r_j|^2: where
    the data do not decide, the newest output is reused.
    """
    normal = regressors @ regressors.T
    return ridge_normal(normal, regressors @ target)


def ridge_normal(normal: Array, right: Array) -> Array:
    """Return the coefficients from the normal equations: (k, k) inner products, and (k,)."""
    size = len(normal)
    strength = RIDGE * float(normal.trace()) / size + 1e-300
    damped: Array = normal.copy()
    pulled: Array = right.copy()
    damped.flat[:: size + 1] += strength
    pulled[0] += strength
    found: Array = np.linalg.solve(damped, pulled).astype(np.float64, copy=False)
    return found
