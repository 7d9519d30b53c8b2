"""The command line: `smoothcache-video demo|calibrate|transfer|plan|fit|sample|evaluate`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError

from smoothcache_video.clip_files import FileKind, chosen_suffix
from smoothcache_video.loading import MOVING_DIGITS, SHIPPED, SHIPPED_GUIDANCE

if TYPE_CHECKING:
    from torch import Tensor

    from smoothcache_video.sampling import PromptSampler

__all__ = ["app", "main"]

_STEPS = 30  # what SmoothCache was published with for Open-Sora (arXiv 2411.10510)

Model = Annotated[
    str,
    opt.model_option(
        "A pipeline folder, a name on the model hub ('Wan-AI/Wan2.1-T2V-1.3B-Diffusers'), or "
        "'moving-digits', the small model that comes with this package."
    ),
]


def _side(name: str) -> Parameter:
    return Parameter(
        group=opt.MODEL,
        validator=Number(gte=8),
        help=f"{name} in pixels, at least 8. Default: the model's.",
    )


Frames = Annotated[
    PositiveInt | None,
    Parameter(group=opt.SAMPLES, help="Frames of a video, at least 1. Default: the model's."),
]
Fps = Annotated[
    float | None,
    Parameter(
        group=opt.SAMPLES,
        validator=Number(gt=0.0),
        help="Frames per second, above 0: of the model where it can be told, and of files. "
        "Default: the model's, or 8.",
    ),
]
Image = Annotated[
    Path | None,
    Parameter(group=opt.SAMPLES, help="A picture to begin with, for models from image to video."),
]
ClipFormat = Annotated[
    FileKind,
    Parameter(
        name="--format",
        group=opt.FILES,
        help="Write clips as GIF or MP4; 'auto' is MP4 where PyAV is installed "
        "('smoothcache-video[mp4]').",
    ),
]
VBench = Annotated[
    bool,
    Parameter(
        name="--vbench",
        group=opt.FILES,
        help="Name samples as VBench's evaluate.py reads them, with prompts.json beside them.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ClipSource(Source):
    """What to sample: a pipeline, its settings, and how many samples from which seed on.

    Attributes:
        model: A pipeline folder, a name on the model hub, or `"moving-digits"`; `load_pipeline`
            says how it is found, and what `device` and `dtype` are.
        guidance: Strength of guidance; None is 2 for the shipped model, else the model's own.
        height: Height in pixels; None is the model's own.
        width: Width in pixels; None is the model's own.
        frames: Frames of a video; None is the model's own number.
        fps: Frames per second; None is the model's own, or 8.
        image: A picture to begin with, for models from image to video.
        clip_format: What clips are written as.
        vbench: Whether samples are named as VBench reads them.

    Raises:
        CommandError: The batch does not divide the samples, or the picture cannot be read.
        OutputError: MP4 is asked for, and PyAV is not installed.
    """

    SHIPPED: ClassVar[tuple[str, ...]] = tuple(SHIPPED)
    STEPS: ClassVar[int] = _STEPS
    WRITTEN: ClassVar[tuple[str, ...]] = ("clip_format", "vbench")

    model: Model = MOVING_DIGITS
    steps: Annotated[int | None, opt.steps_option(_STEPS)] = None
    guidance: Annotated[float | None, opt.guidance_option(SHIPPED_GUIDANCE)] = None
    height: Annotated[int | None, _side("Height")] = None
    width: Annotated[int | None, _side("Width")] = None
    frames: Frames = None
    fps: Fps = None
    image: Image = None
    clip_format: ClipFormat = "auto"
    vbench: VBench = False

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen_suffix(self.clip_format)
        if self.image is not None and not self.image.is_file():
            raise CommandError(f"--image: there is no file {str(self.image)!r}")

    def sampler(self, *, steps: int) -> PromptSampler:
        """Load the model and return its sampler."""
        from smoothcache_video import clips
        from smoothcache_video.conditions import choose_prompts
        from smoothcache_video.loading import load_pipeline
        from smoothcache_video.sampling import prompt_sampler

        pipe = load_pipeline(self.model, device=self.device, dtype=self.dtype)
        own = SHIPPED_GUIDANCE if self.shipped else None
        sampler = prompt_sampler(
            pipe,
            conditions=choose_prompts(
                pipe, labels=self.labels, prompts=self.prompts, digits=self.shipped
            ),
            steps=steps,
            guidance=own if self.guidance is None else self.guidance,
            samples=self.run_samples,
            height=self.height,
            width=self.width,
            frames=self.frames or (clips.FRAMES if self.shipped else None),
            fps=self.fps or (clips.FPS if self.shipped else None),
            image=None if self.image is None else _picture(self.image),
            adapter=self.adapter,
        )
        sampler.show_progress(True)
        return sampler


def _picture(path: Path) -> Any:
    """Return a picture that a file holds."""
    from PIL import Image as Pictures

    try:
        with Pictures.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise CommandError(f"--image: {str(path)!r} is no picture that can be read") from error


_MODEL = "--model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --prompt 'a red fox in the snow'"
_EXAMPLES = {
    "": [
        "demo",
        f"calibrate {_MODEL} --samples 2 -o mine.safetensors",
        "plan mine.safetensors --compute 0.5 -o half.json",
        f"sample {_MODEL} --schedule half.json",
    ],
    "demo": ["demo --output demo-output --samples 80"],
    "calibrate": [
        "calibrate --steps 30 -o digits.safetensors",
        f"calibrate {_MODEL} --height 480 --width 832 --frames 49 --dtype bfloat16",
    ],
    "sample": [
        "sample --prompt 'a seven moving left' --schedule half.json",
        f"sample {_MODEL} --samples 5 --batch 1 --format mp4 --vbench",
    ],
    "evaluate": [
        "evaluate half.json smooth.json --samples 40 --batch 20 --calibration mine.safetensors",
        "evaluate fitted.json --samples 40 --peers 'benchmarks/quality-video-*.json'",
    ],
}


def _judging(source: ClipSource, sampler: PromptSampler, seeds: Sequence[int]) -> Judging:
    from smoothcache_video.judging import clip_judging

    return clip_judging(sampler, seeds, source.shipped, kind=source.clip_format)


def _save(
    source: ClipSource,
    sampler: PromptSampler,
    seeds: Sequence[int],
    latents: Sequence[Tensor],
    folder: Path,
) -> list[Path]:
    from smoothcache_video.judging import save_clips

    return save_clips(
        sampler, seeds, latents, folder, kind=source.clip_format, vbench=source.vbench
    )


CLIPS = Modality(
    command="smoothcache-video",
    models="video",
    units="clips",
    source=ClipSource,
    demo=Demo(
        opening="digits that move, drawn by a small diffusion transformer",
        title="Moving digits",
        legend="rel L2 with its 95 % interval: against the plain latents. PSNR (dB), SSIM, motion "
        "error (of frame differences): against the\nplain clips; flicker: times that of the plain "
        "clips. accuracy, direction: digits, and ways they move, that a classifier\nrecognises. "
        "Frechet: distance from real clips in its features.",
        files={
            "index.html": "the page to look at, in a browser",
            "clips.gif": "the same clips, plain and by every schedule, and what changed",
            "samples.png": "one of them, frame by frame",
            "clips": "a clip for each schedule: plain, cached, and the difference side by side",
            "report.md": "all of it as Markdown (report.json for programs)",
            "predicted-and-measured.png": "the errors that were promised, and those that came",
            "schedules": "JSON files, for `smoothcache-video sample --schedule`",
        },
        options=("steps", "guidance", "seed", "clip_format"),
        samples=20,
        batch=20,
        duration="a few minutes",
    ),
    judging=_judging,
    save=_save,
    examples=_EXAMPLES,
)
app = command_line(CLIPS)


def main() -> None:
    """Run the command line."""
    app()
