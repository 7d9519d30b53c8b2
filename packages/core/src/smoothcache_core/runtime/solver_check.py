"""Whether the solver of a run is the one that was planned for, seen from the latents it makes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcache_core.runtime.later import Later
from smoothcache_core.runtime.ranks import among_ranks
from smoothcache_core.schedule.solver_steps import SolverStep, SolverSteps

_RESIDUAL = 1e-2
"""Share of what the solver changed that may be left of a deterministic one: what calibrating takes
for rounding at most, and far below the noise of eta = 1 (0.3 and more in 50 steps or fewer)."""


_TIMES = 3.0  # of the calibrated residual: noise of other seeds varies by far less


_ROUNDINGS = 8.0  # of the latent's data type: a step rounds its terms and their sum


_ANOTHER = 0.5
"""Share of the latent itself that is left where it belongs to another run: two independent noises
leave 1.4, a solver of other steps less than the step that it makes."""


_EXPLAINED = 0.9  # of what is left, to be the effect of guidance alone; but for rounding it is all


_GUIDANCE = 0.05  # of the planned strength (at least 1): a difference that moves errors little


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with a run.

    Attributes:
        evaluation: The evaluation whose latent shows it.
        message: What the user is told.
        is_large: Whether so much is left that the latent may belong to another run.
        is_guidance: Whether it is the strength of guidance.
    """

    evaluation: int
    message: str
    is_large: bool
    is_guidance: bool


class _Sums:
    """What the planned solver has made of the outputs so far, for one step that is compared."""

    def __init__(self, step: SolverStep, conditional: int | None) -> None:
        self.step = step
        self._conditional = conditional
        self.planned: Tensor | None = None
        self.difference: Tensor | None = None

    def add(self, evaluation: int, part: int, output: Tensor) -> None:
        """Add the output of a conditioning pass, (n,) float32."""
        if evaluation >= self.step.evaluation:
            return
        coefficients = self.step.outputs[evaluation]
        self.planned = _plus(self.planned, output, coefficients[part])
        if self._conditional is not None and len(coefficients) == 2:
            sign = 1.0 if part == self._conditional else -1.0
            self.difference = _plus(self.difference, output, sign * sum(coefficients))

    def left(self, start: Tensor, latent: Tensor, alike: Tensor) -> Later | None:
        """Return products of what is left of the latent, (6,); None if nothing was added.

        They are |r|^2, r . d, |d|^2, |x - x_0|^2 and |x|^2, where r is what is left and d the
        effect of one more unit of guidance; and `alike`.
        """
        if self.planned is None:
            return None
        along = start / (start @ start)
        rest = latent - self.planned
        rest = rest - start * (rest @ along)
        other = torch.zeros_like(rest) if self.difference is None else self.difference
        other = other - start * (other @ along)
        moved = latent - start
        products = rest @ rest, rest @ other, other @ other, moved @ moved, latent @ latent
        return Later(torch.stack((*products, alike)))

    def strength(self) -> float:
        """Return the planned weight of the conditional pass."""
        assert self._conditional is not None
        own = sum(each[self._conditional] for each in self.step.outputs)
        return own / sum(map(sum, self.step.outputs))


class SolverCheck:
    """Compares the first steps of a run with the planned ones.

    Args:
        planned: What the planned solver does; None to compare nothing.
    """

    def __init__(self, planned: SolverSteps | None) -> None:
        self._planned = planned
        self.restart()

    def restart(self) -> None:
        """A new run begins."""
        planned, self._start = self._planned, None
        steps = () if planned is None else planned.steps
        self._sums = [_Sums(step, planned and planned.conditional) for step in steps]
        self._asked: list[tuple[_Sums, float, Later]] = []
        self._off, self._separate = not steps, False

    @property
    def _passes(self) -> int:
        return len(self._sums[0].step.outputs[0])

    def compares(self, evaluation: int) -> bool:
        """Return whether the latent of an evaluation, from 0, is compared."""
        return any(sums.step.evaluation == evaluation for sums in self._sums)

    def begin(self, evaluation: int, latent: Tensor, *, separate: bool) -> None:
        """See the latent of the first call of an evaluation, (rows, ...).

        Args:
            evaluation: Its index in the run.
            latent: As the denoiser is given it.
            separate: Whether conditioning passes are calls of their own.
        """
        if self._off or evaluation > self._sums[-1].step.evaluation:
            return
        self._separate = separate
        part = self._parts(latent)[0]
        if evaluation == 0:
            self._start = part.clone()
        elif self._start is None or part.shape != self._start.shape:
            self._off = True
            return
        for sums in self._sums:
            if self._start is not None and sums.step.evaluation == evaluation:
                left = sums.left(self._start, part, self._alike(latent))
                if left is not None:
                    self._asked.append((sums, torch.finfo(latent.dtype).eps, left))

    def end(self, evaluation: int, part: int, signal: Tensor | None) -> None:
        """See a call that was made or answered.

        Args:
            evaluation: The evaluation that the call belongs to.
            part: Number of the call in the evaluation, from 0.
            signal: What of its output is like its latent, (rows, ...); None if nothing is.
        """
        if self._off or self._start is None or evaluation >= self._sums[-1].step.evaluation:
            return
        if signal is None:
            self._off = True
            return
        passes = self._parts(signal)
        first = part if len(passes) == 1 else 0
        if first + len(passes) > self._passes:
            self._off = True
            return
        for number, values in enumerate(passes, first):
            for sums in self._sums:
                sums.add(evaluation, number, values)

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """Return the rows of the conditioning passes in one call, (n,) float32 each."""
        together = not self._separate and len(rows) % self._passes == 0
        passes = rows.detach().chunk(self._passes) if together else [rows.detach()]
        return [each.float().reshape(-1) for each in passes]

    def _alike(self, rows: Tensor) -> Tensor:
        """Return whether a call holds all passes of guidance, of the same latents: 0 or 1, ()."""
        first, *others = self._parts(rows)
        if self._separate or self._passes == 1:
            return first.new_ones(())
        return (first == others[0]).all().float() if others else first.new_zeros(())

    def findings(self, *, wait: bool = False) -> list[Finding]:
        """Return what is found out by now.

        Args:
            wait: Wait for the device where it is not done yet.
        """
        done = [each for each in self._asked if wait or each[2].is_there]
        self._asked = [each for each in self._asked if each not in done]
        found = [_finding(sums, eps, later.read()) for sums, eps, later in done]
        return [each for each in found if each is not None]


def _plus(total: Tensor | None, output: Tensor, coefficient: float) -> Tensor:
    return output * coefficient if total is None else total.add_(output, alpha=coefficient)


def _finding(sums: _Sums, eps: float, products: list[float]) -> Finding | None:
    """Return what is wrong with one step, if anything; see `_Sums.left` for the products."""
    left, along, unit, moved, size, alike = products
    if not all(map(math.isfinite, products)) or not moved or not size:
        return None
    if not alike and among_ranks():
        return None  # each rank may evaluate one pass of guidance, and see nothing of the other
    step, share = sums.step, math.sqrt(left / moved)
    rounding = _ROUNDINGS * eps * math.sqrt(size / moved)
    is_noisy = step.residual > _RESIDUAL + rounding
    expected = _TIMES * step.residual + rounding
    found = ""
    if unit and along**2 > _EXPLAINED * unit * left and share > expected:
        found = _other_guidance(sums.strength(), along / unit)
    is_guidance = bool(found)
    if not found and share > max(expected, _RESIDUAL + rounding):
        found = (
            f"the run does not follow the planned solver: {share:.2g} of the latent's change "
            f"before evaluation {step.evaluation} is unexplained ({step.residual:.2g} in "
            "calibration). Check the solver, eta, the timesteps and the guidance scale"
        )
    if is_noisy and share < step.residual / _TIMES:
        found = (
            f"the schedule was planned for a stochastic solver (noise is {step.residual:.2g} of a "
            f"step), but this run adds {share:.2g}; check eta"
        )
    is_large = not is_noisy and left > _ANOTHER**2 * size
    if not found:
        return None
    return Finding(
        evaluation=step.evaluation, message=found, is_large=is_large, is_guidance=is_guidance
    )


def _other_guidance(planned: float, change: float) -> str:
    """Return what to tell of guidance of another strength; empty if it hardly differs."""
    if abs(change) <= _GUIDANCE * max(abs(planned), 1.0):
        return ""
    return (
        f"the run appears to use guidance scale {planned + change:.3g}, but the schedule was "
        f"planned for {planned:.3g} (a different solver can look the same)"
    )
