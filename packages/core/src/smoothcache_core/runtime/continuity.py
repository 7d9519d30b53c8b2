"""Whether every latent is what a solver makes of the one before it.

A solver's next latent is, but for noise that it adds, a combination of the latent and of what the
denoiser said of it. The latent of another request is not. So two requests that take turns on one
model are found out, whatever they tell of their timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.runtime.later import Later

MIXED = 0.3
"""Share of a latent's square that its predecessor leaves unexplained, from which on it is looked
for the run that explains it. Noises of two requests leave 1; the noise that a stochastic solver
adds in one of 20 steps or more leaves less than 0.3."""


FOREIGN = 0.7
"""Share from which on a latent can hardly be of the run at all, whatever noise its solver adds."""


_LEFT = 4  # runs left incomplete that are remembered, two latents each


_ROUNDED = 1e-5  # of the largest eigenvalue: products are in float32, and passes may be alike


_BETTER = 0.25  # of what one run leaves unexplained: what another may leave to be the one meant


@dataclass(frozen=True)
class _Seen:
    """One evaluation: its latent, and what of the outputs of all its calls is like it."""

    latent: Tensor
    signals: list[Tensor]

    @property
    def vectors(self) -> list[Tensor]:
        """The latent of one pass, and the outputs of all, (n,) each."""
        outputs = [half for signal in self.signals for half in _halves(signal)]
        return [_halves(self.latent)[0], *outputs]


@dataclass(frozen=True)
class _Question:
    """Products of a latent with what it may come of.

    Attributes:
        evaluation: The evaluation of the latent.
        sizes: Vectors of each run that it may continue, the present run first.
        products: Inner products of the latent and these vectors, flattened, (1 + sum(sizes))^2.
    """

    evaluation: int
    sizes: tuple[int, ...]
    products: Later

    def unexplained(self) -> list[float]:
        """Return the share of the latent's square that each run leaves, 0 to 1; 0 beside NaN."""
        side = 1 + sum(self.sizes)
        gram = np.asarray(self.products.read()).reshape(side, side)
        if not np.isfinite(gram).all():
            return [0.0] * len(self.sizes)
        shares, start = [], 1
        for size in self.sizes:
            own = slice(start, start + size)
            known = np.linalg.pinv(gram[own, own], rcond=_ROUNDED, hermitian=True)
            explained = gram[0, own] @ known @ gram[own, 0]
            shares.append(float(1.0 - explained / gram[0, 0]) if gram[0, 0] else 0.0)
            start += size
        return shares


class Continuity:
    """Follows the latents of one run after the other."""

    def __init__(self) -> None:
        self._last: tuple[int, _Seen] | None = None
        self._left: list[_Seen] = []
        self._asked: list[_Question] = []

    @property
    def has_left(self) -> bool:
        """Whether a run was left before its end, so that it may be continued."""
        return bool(self._left)

    def begin(self, evaluation: int, latent: Tensor) -> None:
        """Compare the latent of an evaluation with the run so far, (rows, ...)."""
        if self._last is None or self._last[0] != evaluation - 1:
            return
        runs = [seen for seen in (self._last[1], *self._left) if seen.latent.shape == latent.shape]
        if not runs or runs[0] is not self._last[1]:
            return
        vectors = [_halves(latent.detach())[0], *(v for seen in runs for v in seen.vectors)]
        wide = [vector.to(torch.float32) for vector in vectors]
        sizes = tuple(len(seen.vectors) for seen in runs)
        # one by one: a product of matrices would count as work of the model where that is counted
        products = Later(torch.stack([torch.dot(one, other) for one in wide for other in wide]))
        self._asked.append(_Question(evaluation, sizes, products))

    def end(self, evaluation: int, latent: Tensor, signal: Tensor | None) -> None:
        """Note a call that was made or answered.

        Args:
            evaluation: The evaluation that the call belongs to.
            latent: The latent that the caller gave, (rows, ...).
            signal: What of the output that the caller got is like it; None if nothing is.
        """
        if self._last is None or self._last[0] != evaluation:
            self._last = evaluation, _Seen(latent.detach().clone(), [])
        if signal is not None:
            self._last[1].signals.append(signal.clone())

    def leave(self) -> None:
        """Another run begins, though the present one is not at its end."""
        if self._last is not None:
            self._left = [*self._left, self._last[1]][-_LEFT:]
        self._last = None
        self._asked = []

    def forget(self) -> None:
        """Forget all runs."""
        self._last, self._left, self._asked = None, [], []

    def answers(self, *, wait: bool = False) -> list[tuple[int, Sequence[float]]]:
        """Return what is known by now: evaluations and the shares that runs leave unexplained.

        Args:
            wait: Wait for the device where it is not done yet.
        """
        done = [each for each in self._asked if wait or each.products.is_there]
        self._asked = [each for each in self._asked if each not in done]
        return [(each.evaluation, each.unexplained()) for each in done]


def is_mixed(unexplained: Sequence[float]) -> bool:
    """Return whether a latent continues another run than the present one, the first."""
    present, *left = unexplained
    return present > MIXED and any(share < _BETTER * present for share in left)


def _halves(rows: Tensor) -> list[Tensor]:
    """Return the halves of a batch, which may be those of guidance, (n,) each; one if it is odd."""
    return [half.reshape(-1) for half in (rows.chunk(2) if len(rows) % 2 == 0 else [rows])]
