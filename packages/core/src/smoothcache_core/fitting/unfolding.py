"""One cached run beside its plain run, and the output that makes the solver land where it is to be.

That is the plain run's next latent, or the exact solution's.
"""

import torch
from torch import Tensor

from smoothcache_core.calibrating.solver_response import drift, guided
from smoothcache_core.calibration.response import Response
from smoothcache_core.optimize.surrogate import SMALLEST_SHARE
from smoothcache_core.sampling.trajectory import Trajectory


class Unfolding:
    """One cached run beside its plain run, in float32 on the CPU; n entries in all samples.

    Args:
        plain: The plain run.
        response: How the solver answers to the denoiser's outputs.
        ends: Where the run is to be after every evaluation, (E, n); None for where the plain run
            is.

    Attributes:
        history: Outputs computed so far, (parts, n) each, the newest first.
        differences: Conditional minus unconditional outputs, where both were computed.
        newest: The evaluation computed last.
    """

    def __init__(self, plain: Trajectory, response: Response, ends: Tensor | None = None) -> None:
        self.history: list[Tensor] = []
        self.differences: list[Tensor] = []
        self.newest = 0
        self._plain = plain
        self._response = response
        self._guided = guided(response, plain.outputs)
        own = torch.cat((plain.latents[1:], plain.end[None]))
        self._offsets = None if ends is None else ends - own
        self._changes = torch.zeros_like(self._guided)

    def guide(self, evaluation: int, outputs: Tensor) -> Tensor:
        """Return the guided output, (n,), of outputs (parts, n)."""
        weights = torch.from_numpy(self._response.weights[evaluation]).to(outputs)
        return weights @ outputs

    def latent(self, evaluation: int) -> Tensor:
        """Return the cached run's latent, (n,)."""
        moved = drift(self._response, evaluation, self._changes)
        return self._plain.latents[evaluation] + moved

    def corrects(self, evaluation: int) -> bool:
        """Return whether a computed output is to be corrected."""
        return self._offsets is not None and bool(self._response.matrix[evaluation, evaluation])

    def landing(self, evaluation: int) -> Tensor:
        """Return the guided output that makes the solver land where the run is to be next."""
        row = self._response.matrix[evaluation]
        if not row[evaluation]:
            return self._guided[evaluation]
        weights = torch.from_numpy(row[:evaluation] / row[evaluation]).to(self._changes)
        landing = self._guided[evaluation] - weights @ self._changes[:evaluation]
        if self._offsets is None:
            return landing
        return landing + self._offsets[evaluation] / float(row[evaluation])

    def difference(self, evaluation: int, conditional: Tensor, index: int) -> Tensor:
        """Return the guidance difference that lands, (n,), given the conditional output."""
        share = float(self._response.weights[evaluation, 1 - index])
        if abs(share) > SMALLEST_SHARE:
            return (conditional - self.landing(evaluation)) / share
        return self.plain_difference(evaluation, index)

    def plain_difference(self, evaluation: int, index: int) -> Tensor:
        """Return the guidance difference of the plain run, (n,), given the conditional pass."""
        return self._plain.outputs[evaluation, index] - self._plain.outputs[evaluation, 1 - index]

    def take(self, evaluation: int, outputs: Tensor, conditional: int | None) -> None:
        """Note computed outputs, (parts, n), and their difference if `conditional` is given."""
        self.history.insert(0, outputs)
        self.newest = evaluation
        if conditional is not None and len(outputs) == 2:
            self.differences.insert(0, outputs[conditional] - outputs[1 - conditional])
        self.change(evaluation, self.guide(evaluation, outputs))

    def change(self, evaluation: int, output: Tensor) -> None:
        """Note the guided output that the solver gets."""
        self._changes[evaluation] = output - self._guided[evaluation]
