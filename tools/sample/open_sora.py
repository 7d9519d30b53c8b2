"""Sample Open-Sora in any of its implementations, plain or by a schedule.

    python -m tools.sample.open_sora --prompt "A lighthouse." --speedup 2 --schedule twice.json
    python -m tools.sample.open_sora --prompt "A lighthouse." --schedule twice.json --seed 1
    python -m tools.sample.open_sora --library opensora-1.2 --frames 102 --steps 30
    python -m tools.sample.open_sora --library opensora-2.0 --model 256px.py --steps 50

`smoothcache-video` is v1.2 of this project, which needs nothing else installed; `opensora-1.2` and
`opensora-2.0` are upstream's own. What caching adds to their code is the `with` in `main`, and with
`--speedup` the calibration before it. A schedule is for one number of steps, and for one size and
number of frames: timesteps move with them. A first try, with a small model:

    python -m tools.sample.open_sora --model moving-digits --prompt "a seven moving left" --frames 8
        --height 32 --width 32 --fps 8 --guidance 3 --speedup 2 --schedule digits.json
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import cyclopts
import torch
from cyclopts import Parameter, validators
from smoothcache_core import Schedule, SmoothCacheError, calibrate, plan
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines import announcing_guidance, cached_sampler
from smoothcache_core.pipelines.loading import device_named
from smoothcache_video.clip_files import save_clip

from tools.sample.open_sora_libraries import Library, Loaded, Wish, load

_PIXELS = 8
"""Sides of the latent are an eighth of those of the video."""


def main(
    prompt: Annotated[str, Parameter(help="What to see.")] = "A lighthouse at night.",
    library: Annotated[
        Library, Parameter(help="Whose implementation to sample with.")
    ] = "smoothcache-video",
    model: Annotated[
        str | None,
        Parameter(
            help="Checkpoint or pipeline of the denoiser, a folder or a name on the model hub; for "
            "opensora-2.0 its settings file. Default: what was published."
        ),
    ] = None,
    schedule: Annotated[
        Path | None,
        Parameter(help="Schedule; without it everything is computed. Written with --speedup."),
    ] = None,
    speedup: Annotated[
        float | None,
        Parameter(
            validator=validators.Number(gt=1),
            help="Calibrate first, and plan for this speedup by MACs.",
        ),
    ] = None,
    seeds: Annotated[
        int, Parameter(validator=validators.Number(gte=1), help="Runs to calibrate with.")
    ] = 4,
    height: Annotated[
        int, Parameter(validator=validators.Number(gte=8), help="Height in pixels.")
    ] = 144,
    width: Annotated[
        int, Parameter(validator=validators.Number(gte=8), help="Width in pixels.")
    ] = 256,
    frames: Annotated[
        int, Parameter(validator=validators.Number(gte=1), help="Frames of the video.")
    ] = 51,
    fps: Annotated[
        float, Parameter(validator=validators.Number(gt=0), help="Frames per second.")
    ] = 24.0,
    steps: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=1),
            help="Steps; default: those of the schedule, else 30.",
        ),
    ] = None,
    guidance: Annotated[float, Parameter(help="Strength of guidance; 1 is none.")] = 7.0,
    seed: Annotated[int, Parameter(help="Seed of the noise.")] = 0,
    device: Annotated[str, Parameter(help="Torch device; 'auto' is CUDA if any.")] = "auto",
    output: Annotated[Path, Parameter(help="GIF or MP4 file to write.")] = Path("video.gif"),
) -> None:
    """Sample Open-Sora in any of its implementations, plain or by a schedule."""
    if speedup is not None and schedule is None:
        raise CommandError("--speedup makes a schedule: say where to with --schedule FILE")
    if height % _PIXELS or width % _PIXELS:
        raise CommandError(f"--height and --width are multiples of {_PIXELS}")
    planned = None if schedule is None or speedup is not None else Schedule.load(schedule)
    own = 30 if planned is None else planned.evaluations
    wish = Wish(
        prompt=prompt,
        height=height,
        width=width,
        frames=frames,
        fps=fps,
        steps=steps or own,
        guidance=guidance,
    )
    loaded = load(library, model, wish, device_named(device))
    with announcing_guidance(guidance_scale=guidance):
        if speedup is not None and schedule is not None:
            planned = planned_for(loaded, speedup, seeds)
            planned.save(schedule)
        start = time.perf_counter()
        with nullcontext() if planned is None else cached_sampler(loaded.sampler, planned):
            video = loaded.video(seed)
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s, in {save_clip(video.cpu(), output, fps=fps)}")


def planned_for(loaded: Loaded, speedup: float, seeds: int) -> Schedule:
    """Calibrate a model, and return what is planned for a speedup.

    Args:
        loaded: The model.
        speedup: Compute of the plain run over that of a cached one, above 1.
        seeds: Runs to calibrate with, at least 1.
    """
    # the last of the seeds that fit in 31 bits: those that a user samples with are others
    last = torch.iinfo(torch.int32).max
    calibration = calibrate(loaded.sampler, seeds=range(last - seeds, last))
    return plan(calibration, speedup=speedup)


if __name__ == "__main__":
    try:
        cyclopts.run(main)
    except SmoothCacheError as error:
        raise SystemExit(f"open_sora.py: {error}") from error
