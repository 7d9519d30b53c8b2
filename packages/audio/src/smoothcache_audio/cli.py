"""The command line: `smoothcache-audio demo|calibrate|transfer|plan|fit|sample|evaluate|judge`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from cyclopts import Parameter
from cyclopts.validators import Number
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError

from smoothcache_audio.judge_command import Judge
from smoothcache_audio.loading import (
    SHIPPED,
    SHIPPED_GUIDANCE,
    SHIPPED_SIGMAS,
    SPOKEN_DIGITS,
    Library,
)

if TYPE_CHECKING:
    from torch import Tensor

    from smoothcache_audio.sampling import PromptSampler

__all__ = ["app", "main"]

_STEPS = 100  # what Stable Audio Open is sampled with

Model = Annotated[
    str,
    opt.model_option(
        "A model folder of stable-audio-tools or of diffusers, a name on the model hub "
        "('stabilityai/stable-audio-open-1.0'), or 'spoken-digits', the small model that comes "
        "with this package."
    ),
]
LibraryOption = Annotated[
    Library,
    Parameter(
        group=opt.MODEL,
        help="Library to load the model with; 'auto' is stable-audio-tools where the model is "
        "there for it and the library is installed, else diffusers.",
    ),
]
SolverOption = Annotated[
    str,
    Parameter(
        group=opt.MODEL,
        metavar="NAME",
        help="Solver by its name in stable-audio-tools: 'dpmpp-3m-sde', 'dpmpp-2m', 'k-heun', "
        "'v-ddim', 'euler', 'rk4', 'pingpong' and others. 'default' suits the model's objective; "
        "a pipeline of diffusers has its own.",
    ),
]
Seconds = Annotated[
    float | None,
    Parameter(
        group=opt.SAMPLES,
        validator=Number(gte=0.0),
        help="Length of the sounds in seconds, above 0. Default: the model's.",
    ),
]


def _sigma(what: str) -> Parameter:
    return Parameter(
        group=opt.MODEL,
        validator=Number(gte=0.0),
        help=f"Noise that solvers of stable-audio-tools {what} with, above 0. Default: that of "
        "Stable Audio Open, or of the small models.",
    )


@dataclass(frozen=True, kw_only=True)
class SoundSource(Source):
    """What to sample: a model, its settings, and how many samples from which seed on.

    Attributes:
        model: A model folder, a name on the model hub, or `"spoken-digits"`; `load_model` says how
            it is found, and what `device` and `dtype` are.
        guidance: Strength of guidance; None is 2.5 for a shipped model, else the library's own.
        library: What to load the model with: `"auto"`, `"stable-audio-tools"` or `"diffusers"`.
        solver: Solver of stable-audio-tools by its name there; `"default"` is the one that suits
            the model's objective.
        seconds: Length of the sounds; None is the model's own.
        sigma_min: Noise that the solver ends with; None is what suits the model.
        sigma_max: Noise that the solver begins with; None is what suits the model.
    """

    SHIPPED: ClassVar[tuple[str, ...]] = tuple(SHIPPED)
    STEPS: ClassVar[int] = _STEPS

    model: Model = SPOKEN_DIGITS
    steps: Annotated[int | None, opt.steps_option(_STEPS)] = None
    guidance: Annotated[float | None, opt.guidance_option(SHIPPED_GUIDANCE)] = None
    library: LibraryOption = "auto"
    solver: SolverOption = "default"
    seconds: Seconds = None
    sigma_min: Annotated[float | None, _sigma("end")] = None
    sigma_max: Annotated[float | None, _sigma("begin")] = None

    @property
    def chosen_solver(self) -> str:
        """The solver that was asked for; empty for the model's own."""
        return "" if self.solver == "default" else self.solver

    def steps_for(self, evaluations: int) -> int:
        """Return the steps in which the solver makes so many evaluations.

        Raises:
            CommandError: There is no such number.
        """
        from smoothcache_audio.stable_audio_tools import FLOW_SOLVERS, V_SOLVERS

        each = {**V_SOLVERS, **FLOW_SOLVERS}.get(self.solver, 1)
        shortened = 1 if each == 2 else 0
        steps, rest = divmod(evaluations + shortened, each)
        if rest:
            raise CommandError(f"solver {self.solver!r} never makes {evaluations} evaluations")
        return steps

    def sampler(self, *, steps: int) -> PromptSampler:
        """Load the model and return its sampler."""
        from smoothcache_audio.conditions import choose_conditions
        from smoothcache_audio.loading import load_model
        from smoothcache_audio.sampling import SIGMA_MAX, SIGMA_MIN, prompt_sampler

        model = load_model(self.model, library=self.library, device=self.device, dtype=self.dtype)
        least, most = SHIPPED_SIGMAS if self.shipped else (SIGMA_MIN, SIGMA_MAX)
        own = SHIPPED_GUIDANCE if self.shipped else None
        sampler = prompt_sampler(
            model,
            conditions=choose_conditions(
                model, labels=self.labels, prompts=self.prompts, digits=self.shipped
            ),
            steps=steps,
            guidance=own if self.guidance is None else self.guidance,
            samples=self.run_samples,
            seconds=self.seconds,
            solver=self.solver,
            sigma_min=least if self.sigma_min is None else self.sigma_min,
            sigma_max=most if self.sigma_max is None else self.sigma_max,
            adapter=self.adapter,
        )
        sampler.show_progress(True)
        return sampler


_MODEL = "--model stabilityai/stable-audio-open-1.0 --seconds 10 --prompt 'a dog barks'"
_EXAMPLES = {
    "": [
        "demo",
        f"calibrate {_MODEL} --samples 4 -o mine.safetensors",
        "plan mine.safetensors --compute 0.5 -o half.json",
        f"sample {_MODEL} --schedule half.json",
    ],
    "demo": ["demo --output demo-output --samples 100"],
    "calibrate": [
        "calibrate --solver dpmpp-2m --steps 50 -o digits.safetensors",
        f"calibrate {_MODEL} --library diffusers --dtype float16",
    ],
    "sample": [
        "sample --labels three,one,4 --samples 3",
        f"sample {_MODEL} --schedule half.json",
    ],
    "evaluate": [
        "evaluate half.json smooth.json --samples 50 --batch 10 --calibration mine.safetensors",
        "evaluate fitted.json --samples 50 --peers 'benchmarks/quality-audio-*.json'",
    ],
    "judge": [
        "judge plain cached",
        "judge plain cached --kl-passt --prompts prompts.txt --recordings recordings",
    ],
}


def _judging(source: Source, sampler: PromptSampler, seeds: Sequence[int]) -> Judging:
    from smoothcache_audio.judging import sound_judging

    return sound_judging(sampler, seeds, source.shipped)


def _save(
    source: Source,
    sampler: PromptSampler,
    seeds: Sequence[int],
    latents: Sequence[Tensor],
    folder: Path,
) -> list[Path]:
    del source
    from smoothcache_audio.judging import save_sounds

    return save_sounds(sampler, seeds, latents, folder)


SOUNDS = Modality(
    command="smoothcache-audio",
    models="audio",
    units="sounds",
    source=SoundSource,
    demo=Demo(
        opening="digits, spoken by a small diffusion transformer",
        title="Spoken digits",
        legend="rel L2 with its 95 % interval: against the plain latents. LSD (log-spectral "
        "distance, dB), mel L1, SI-SDR (dB), KL (nats):\nagainst the plain sounds. accuracy: "
        "digits that a classifier recognises. Frechet: distance from real ones in its features.",
        files={
            "index.html": "the page to look at, in a browser",
            "sounds": "WAV files: the same digits, plain and by every schedule",
            "samples.png": "their spectrograms, and what changed",
            "waveforms.png": "one of them over its plain waveform",
            "report.md": "all of it as Markdown (report.json for programs)",
            "predicted-and-measured.png": "the errors that were promised, and those that came",
            "schedules": "JSON files, for `smoothcache-audio sample --schedule`",
        },
        samples=50,
        batch=25,
        duration="a few minutes",
    ),
    judging=_judging,
    save=_save,
    commands=(Judge,),
    examples=_EXAMPLES,
)
app = command_line(SOUNDS)


def main() -> None:
    """Run the command line."""
    app()
