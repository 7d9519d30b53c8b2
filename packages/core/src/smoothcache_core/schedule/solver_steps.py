"""What a run's solver makes of the denoiser's first outputs, for telling another solver from it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt


class SolverStep(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: Annotated[int, Field(ge=1)]
    outputs: tuple[tuple[FiniteFloat, ...], ...]
    residual: Annotated[FiniteFloat, Field(ge=0.0)]


class SolverSteps(BaseModel):
    """A few evaluations at the beginning of a run, at which its solver is compared.

    Attributes:
        steps: The evaluations, ascending.
        conditional: Index of the conditional pass among the passes; None if it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[SolverStep, ...]
    conditional: NonNegativeInt | None = None
