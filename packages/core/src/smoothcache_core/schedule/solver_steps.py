"""What a run's solver makes of the denoiser's first outputs, for telling another solver from it."""

import itertools
from typing import Self

from pydantic import model_validator

from smoothcache_core.schedule.values import Count, NonNegative, Number, Positive, Value


class SolverStep(Value):
    """The latent of one evaluation, as the solver makes it of the outputs before it.

    With x_0 the latent of the run's first evaluation, that of evaluation k is c x_0 + sum_j sum_p
    outputs[j][p] y_jp, where y_jp is the denoiser's output of pass p at evaluation j. Solvers and
    guidance are affine in the outputs, so the coefficients are the same for all entries of the
    latent; those of another solver, other noise, other timesteps or another strength of guidance
    are others.

    Attributes:
        evaluation: k, at least 1.
        outputs: Coefficients, (k, passes).
        residual: What the sum leaves of x_k in the plain run, over |x_k - x_0|: the noise that a
            stochastic solver adds, else rounding; at least 0.
    """

    evaluation: Positive
    outputs: tuple[tuple[Number, ...], ...]
    residual: NonNegative

    @model_validator(mode="after")
    def _check_outputs(self) -> Self:
        passes = {len(row) for row in self.outputs}
        if len(self.outputs) != self.evaluation or len(passes) != 1 or 0 in passes:
            raise ValueError(
                f"outputs are (evaluation, passes), here ({self.evaluation}, ...), got rows of "
                f"{[len(row) for row in self.outputs]}"
            )
        return self


class SolverSteps(Value):
    """A few evaluations at the beginning of a run, at which its solver is compared.

    Attributes:
        steps: The evaluations, ascending.
        conditional: Index of the conditional pass among the passes; None if it is not known.
    """

    steps: tuple[SolverStep, ...]
    conditional: Count | None = None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        found = [step.evaluation for step in self.steps]
        if any(one >= other for one, other in itertools.pairwise(found)):
            raise ValueError(f"steps are of ascending evaluations, got {found}")
        passes = {len(row) for step in self.steps for row in step.outputs}
        if len(passes) > 1:
            raise ValueError(f"all steps have the same passes, got {sorted(passes)}")
        if self.conditional is not None and self.conditional >= max(passes, default=0):
            raise ValueError(f"there is no pass {self.conditional}, counted from 0")
        return self
