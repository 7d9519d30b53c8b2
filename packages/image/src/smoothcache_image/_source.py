"""What a command samples: a pipeline, its settings, and the seeds. Loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from cyclopts import Parameter
from cyclopts.validators import Number
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.source import Source

from smoothcache_image._names import DIGITS, SHIPPED, Solver

if TYPE_CHECKING:
    from smoothcache_image._sampling import Sampler

DIGITS_GUIDANCE = 1.5
"""Guidance that the shipped models look best with."""

_STEPS = 50

Model = Annotated[
    str,
    opt.model_option(
        "A pipeline folder, a name on the model hub ('facebook/DiT-XL-2-256'), or a small model "
        "that comes with this package: 'digits' predicts noise, 'digits-flow' a flow."
    ),
]
SolverOption = Annotated[
    Solver,
    Parameter(
        group=opt.MODEL,
        help="Solver; 'default' is the model's own, 'ddim' is for models that predict noise, "
        "'sde-dpmsolver++' adds noise at every step.",
    ),
]
Size = Annotated[
    int | None,
    Parameter(
        group=opt.MODEL,
        validator=Number(gte=8),
        help="Height and width in pixels, at least 8, for models that take prompts. Default: the "
        "model's.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PictureSource(Source):
    """What to sample: a pipeline, its settings, and how many samples from which seed on.

    Attributes:
        model: See `load_pipeline`; as are `device`, `dtype` and `solver`.
        solver: See `load_pipeline`.
        guidance: Strength of guidance; None is 1.5 for a shipped model, else the model's own.
        size: Height and width in pixels; None is the model's own.
    """

    SHIPPED: ClassVar[tuple[str, ...]] = tuple(SHIPPED)
    STEPS: ClassVar[int] = _STEPS

    model: Model = DIGITS
    steps: Annotated[int | None, opt.steps_option(_STEPS)] = None
    guidance: Annotated[float | None, opt.guidance_option(DIGITS_GUIDANCE)] = None
    solver: SolverOption = "default"
    size: Size = None

    def sampler(self, *, steps: int) -> Sampler:
        """Load the model and return its sampler."""
        from smoothcache_image._loading import load_pipeline
        from smoothcache_image._sampling import Sampler, choose_conditions

        pipe = load_pipeline(self.model, device=self.device, dtype=self.dtype, solver=self.solver)
        pipe.set_progress_bar_config(desc="steps", leave=False, disable=None)
        own = DIGITS_GUIDANCE if self.shipped else None
        return Sampler(
            pipe=pipe,
            conditions=choose_conditions(pipe, labels=self.labels, prompts=self.prompts),
            steps=steps,
            guidance=own if self.guidance is None else self.guidance,
            batch=self.run_samples,
            size=self.size,
        )
