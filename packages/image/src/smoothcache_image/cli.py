"""The command line: `smoothcache-image demo|calibrate|transfer|plan|fit|sample|evaluate`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from cyclopts import Parameter
from cyclopts.validators import Number
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality
from smoothcache_core.cli.source import Source

from smoothcache_image.loading import DIGITS, DIGITS_GUIDANCE, SHIPPED, Solver

if TYPE_CHECKING:
    from smoothcache_core.routing import CleanLatents
    from smoothcache_core.sampling import ConditionedSampler
    from torch import Tensor

    from smoothcache_image.sampling import PromptSampler

__all__ = ["app", "main"]

_STEPS = 50  # what SmoothCache was published with for DiT (arXiv 2411.10510)

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
        model: A pipeline folder, a name on the model hub, `"digits"` or `"digits-flow"`;
            `load_pipeline` says how it is found, and what `device` and `dtype` are.
        guidance: Strength of guidance; None is 1.5 for a shipped model, else the model's own.
        solver: What to sample with: `"default"` is what the pipeline comes with.
        size: Height and width in pixels; None is the model's own.
    """

    SHIPPED: ClassVar[tuple[str, ...]] = tuple(SHIPPED)
    STEPS: ClassVar[int] = _STEPS

    model: Model = DIGITS
    steps: Annotated[int | None, opt.steps_option(_STEPS)] = None
    guidance: Annotated[float | None, opt.guidance_option(DIGITS_GUIDANCE)] = None
    solver: SolverOption = "default"
    size: Size = None

    @property
    def chosen_solver(self) -> str:
        """The solver that was asked for; empty for the model's own."""
        return "" if self.solver == "default" else self.solver

    def sampler(self, *, steps: int) -> PromptSampler:
        """Load the model and return its sampler."""
        from smoothcache_image.conditions import choose_conditions
        from smoothcache_image.loading import load_pipeline
        from smoothcache_image.sampling import prompt_sampler

        pipe = load_pipeline(self.model, device=self.device, dtype=self.dtype, solver=self.solver)
        pipe.set_progress_bar_config(desc="steps", leave=False, disable=None)
        own = DIGITS_GUIDANCE if self.shipped else None
        return prompt_sampler(
            pipe,
            conditions=choose_conditions(pipe, labels=self.labels, prompts=self.prompts),
            steps=steps,
            guidance=own if self.guidance is None else self.guidance,
            samples=self.run_samples,
            size=self.size,
            adapter=self.adapter,
        )

    def clean_latents(self, sampler: ConditionedSampler) -> CleanLatents | None:
        """Return what draws latents of real digits, for models of digits.

        Args:
            sampler: What `sampler` gave.
        """
        if not self.shipped:
            return None
        from smoothcache_image.real_latents import digit_latents

        return digit_latents(cast("PromptSampler", sampler))


_MODEL = "--model facebook/DiT-XL-2-256"
_EXAMPLES = {
    "": [
        "demo",
        f"calibrate {_MODEL} --samples 10 -o mine.safetensors",
        "plan mine.safetensors --compute 0.5 -o half.json",
        f"sample {_MODEL} --schedule half.json",
    ],
    "demo": ["demo --output demo-output --samples 200"],
    "calibrate": [
        "calibrate --steps 50 -o digits.safetensors",
        f"calibrate {_MODEL} --dtype float16",
        "calibrate --model PixArt-alpha/PixArt-Sigma-XL-2-1024-MS --steps 20 --prompt 'a red fox' "
        "--prompt 'a city at night'",
    ],
    "evaluate": [
        "evaluate half.json smooth.json --samples 50 --batch 10 --calibration mine.safetensors",
        "evaluate fitted.json --samples 50 --peers 'benchmarks/quality-image-*.json'",
    ],
}


def _judging(source: Source, sampler: PromptSampler, seeds: Sequence[int]) -> Judging:
    from smoothcache_image.judging import picture_judging

    return picture_judging(sampler, seeds, source.shipped)


def _save(
    source: Source,
    sampler: PromptSampler,
    seeds: Sequence[int],
    latents: Sequence[Tensor],
    folder: Path,
) -> list[Path]:
    del source
    from smoothcache_image.judging import save_pictures

    return save_pictures(sampler, seeds, latents, folder)


IMAGES = Modality(
    command="smoothcache-image",
    models="images",
    units="pictures",
    source=PictureSource,
    demo=Demo(
        opening="digits, drawn by a small diffusion transformer",
        title="Digits",
        legend="rel L2 with its 95 % interval, and PSNR (dB): against the plain sample. accuracy: "
        "digits that a classifier\nrecognises. Frechet: distance from real digits in its features.",
        files={
            "index.html": "the page to look at, in a browser",
            "samples.png": "the same digits, plain and by every schedule",
            "report.md": "all of it as Markdown (report.json for programs)",
            "predicted-and-measured.png": "the errors that were promised, and those that came",
            "schedules": "JSON files, for `smoothcache-image sample --schedule`",
        },
        samples=100,
    ),
    judging=_judging,
    save=_save,
    examples=_EXAMPLES,
)
app = command_line(IMAGES)


def main() -> None:
    """Run the command line."""
    app()
