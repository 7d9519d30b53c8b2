"""Sample Stable Audio Open in either of its libraries, plain or by a schedule.

    python -m tools.sample.stable_audio --prompt "Rain on a tin roof" --seconds 10
    python -m tools.sample.stable_audio --library diffusers --schedule half.json

What caching adds to the code of the library is the `with` in `main`. Schedules come from
`smoothcache-audio calibrate --model stabilityai/stable-audio-open-1.0` and `smoothcache-audio
plan`; they are for one number of steps, and for both libraries as far as the solvers are alike.
"""

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import torch
from cyclopts import Parameter, validators
from smoothcache_audio import cached_pipeline, load_model, save_wav
from smoothcache_core import Schedule, SmoothCacheError
from torch import Tensor

NEGATIVE = "Low quality."


def with_stable_audio_tools(
    model: Any, prompt: str, *, seconds: float, steps: int, guidance: float, seed: int
) -> tuple[Tensor, int]:
    """Return a sound, (channels, samples), and its sample rate."""
    from stable_audio_tools.inference.generation import generate_diffusion_cond

    unit = model.min_input_length
    conditions = [{"prompt": prompt, "seconds_start": 0, "seconds_total": seconds}]
    generate: Any = generate_diffusion_cond  # its annotations are narrower than it is
    sounds = generate(
        model,
        steps=steps,
        cfg_scale=guidance,
        conditioning=conditions,
        sample_size=math.ceil(seconds * model.sample_rate / unit) * unit,
        sampler_type="dpmpp-3m-sde",
        sigma_min=0.3,
        sigma_max=500,
        seed=seed,
        device=str(next(model.parameters()).device),
    )
    return sounds[0], model.sample_rate


def with_diffusers(
    pipe: Any, prompt: str, *, seconds: float, steps: int, guidance: float, seed: int
) -> tuple[Tensor, int]:
    """Return a sound, (channels, samples), and its sample rate."""
    result = pipe(
        prompt,
        negative_prompt=NEGATIVE,
        audio_end_in_s=seconds,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
    )
    return result.audios[0], pipe.vae.config.sampling_rate


def main(
    prompt: Annotated[str, Parameter(help="What to hear.")] = "Rain on a tin roof.",
    library: Annotated[
        Literal["stable-audio-tools", "diffusers"], Parameter(help="Library to sample with.")
    ] = "stable-audio-tools",
    schedule: Annotated[
        Path | None, Parameter(help="Schedule; without it everything is computed.")
    ] = None,
    seconds: Annotated[
        float, Parameter(validator=validators.Number(gte=0.1), help="Length in seconds.")
    ] = 10.0,
    steps: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=1),
            help="Steps; default: those of the schedule, else 100.",
        ),
    ] = None,
    guidance: Annotated[float, Parameter(help="Strength of guidance; 1 is none.")] = 7.0,
    seed: Annotated[int, Parameter(help="Seed of the noise.")] = 0,
    model: Annotated[
        str, Parameter(help="A model folder, or a name on the model hub.")
    ] = "stabilityai/stable-audio-open-1.0",
    device: Annotated[str, Parameter(help="Torch device; 'auto' is CUDA if any.")] = "auto",
    output: Annotated[Path, Parameter(help="WAV file to write.")] = Path("sound.wav"),
) -> None:
    """Sample Stable Audio Open in either of its libraries, plain or by a schedule."""
    plan = None if schedule is None else Schedule.load(schedule)
    loaded = load_model(model, library=library, device=device)
    sample = with_diffusers if library == "diffusers" else with_stable_audio_tools
    own = 100 if plan is None else plan.evaluations
    start = time.perf_counter()
    with nullcontext() if plan is None else cached_pipeline(loaded, plan):
        sound, rate = sample(
            loaded, prompt, seconds=seconds, steps=steps or own, guidance=guidance, seed=seed
        )
    print(f"{time.perf_counter() - start:.1f} s, in {save_wav(sound, output, sample_rate=rate)}")


if __name__ == "__main__":
    try:
        cyclopts.run(main)
    except SmoothCacheError as error:
        raise SystemExit(f"stable_audio.py: {error}") from error
