"""Sample Open-Sora in any of its implementations, plain or by a schedule.

    python -m tools.sample.open_sora --schedule user/open-sora-smoothcache --speedup 2
    python -m tools.sample.open_sora --prompt "A lighthouse." --speedup 2 --schedule twice.json
    python -m tools.sample.open_sora --library opensora-1.2 --frames 102 --steps 30
    python -m tools.sample.open_sora --library opensora-2.0 --model 256px.py --steps 50
    python -m tools.sample.open_sora --small --speedup 2 --schedule digits.json --compare

`smoothcache-video` is v1.2 of this project, which needs nothing else installed; `opensora-1.2` and
`opensora-2.0` are upstream's own. What caching adds to their code is one `with`. A schedule is for
one number of steps, and for one size and number of frames: timesteps move with them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines.loading import device_named
from smoothcache_video.clip_files import save_clip
from torch import Tensor

from tools.sample.open_sora_libraries import Library, Wish, load
from tools.sample.options import AT_LEAST_ONE, Options, run_script
from tools.sample.running import Loaded, sample_with

_PIXELS = 8
"""Sides of the latent are an eighth of those of the video."""

_STEPS = 30  # of Open-Sora's own settings, as the guidance below and the size
_SMALL = {
    "prompt": "a seven moving left",
    "height": 32,
    "width": 32,
    "frames": 8,
    "fps": 8.0,
    "guidance": 3.0,
}
"""What the small model, of moving digits, was trained on."""


def main(
    prompt: Annotated[str, Parameter(help="What to see.")] = "A lighthouse at night.",
    library: Annotated[
        Library, Parameter(help="Whose implementation to sample with.")
    ] = "smoothcache-video",
    height: Annotated[
        int, Parameter(validator=validators.Number(gte=8), help="Height in pixels.")
    ] = 144,
    width: Annotated[
        int, Parameter(validator=validators.Number(gte=8), help="Width in pixels.")
    ] = 256,
    frames: Annotated[int, Parameter(validator=AT_LEAST_ONE, help="Frames of the video.")] = 51,
    fps: Annotated[
        float, Parameter(validator=validators.Number(gt=0), help="Frames per second.")
    ] = 24.0,
    options: Options = Options(),  # noqa: B008 frozen, and the options' own defaults
) -> None:
    """Sample Open-Sora in any of its implementations, plain or by a schedule."""
    if height % _PIXELS or width % _PIXELS:
        raise CommandError(f"--height and --width are multiples of {_PIXELS}")
    if options.small and library != "smoothcache-video":
        raise CommandError("--small is a model of smoothcache-video: leave out --library")
    wish = Wish(
        prompt=prompt,
        height=height,
        width=width,
        frames=frames,
        fps=fps,
        steps=options.steps or _STEPS,
        guidance=7.0,
    )
    if options.small:
        wish = replace(wish, **_SMALL)
    if options.guidance is not None:
        wish = replace(wish, guidance=options.guidance)
    model = "moving-digits" if options.small else options.model

    def loaded(steps: int) -> Loaded:
        exact = replace(wish, steps=steps)
        found = load(library, model, exact, device_named(options.device))
        return Loaded(
            sampler=found.sampler,
            sample=found.video,
            save=save,
            announced={"guidance_scale": wish.guidance},
        )

    def save(video: Tensor, path: Path) -> Path:
        return save_clip(video.cpu(), path, fps=wish.fps)

    sample_with(options, loaded, steps=_STEPS, output=Path("video.gif"))


if __name__ == "__main__":
    run_script("open_sora", main)
