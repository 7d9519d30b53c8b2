"""The Muon optimizer in float32: orthogonal steps for the matrices inside a network.

torch has one too, which computes in bfloat16: slow on a CPU that lacks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.775, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: every matrix moves equally far in all its directions.

    Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024), with the scale
    of arXiv 2502.16982, which makes its learning rates comparable to Adam's.

    Args:
        weights: Matrices only.
        peak: Highest learning rate, kept in the group for who schedules it.
        threads: How many matrices are computed at a time.
        momentum: How much of the past gradients stays at each step, [0, 1).
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], peak: float, threads: int, momentum: float = 0.95
    ) -> None:
        group = {"params": list(weights), "peak": peak, "threads": threads}
        super().__init__([group], {"lr": peak, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix once."""
        for group in self.param_groups:
            pushes = [self._push(weight, group["momentum"]) for weight in group["params"]]
            with ThreadPoolExecutor(group["threads"]) as pool:
                moves = list(pool.map(orthogonal, pushes))
            for weight, move in zip(group["params"], moves, strict=True):
                weight.sub_(move, alpha=group["lr"] * 0.2 * max(weight.shape) ** 0.5)

    def _push(self, weight: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, ahead by one step of its momentum (Nesterov)."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


@torch.no_grad()
def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """A matrix (M, N) with all singular values moved to about 1, by Newton and Schulz."""
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T
