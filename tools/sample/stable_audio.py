"""Sample Stable Audio Open in either of its libraries, plain or by a schedule.

    python -m tools.sample.stable_audio --schedule user/stable-audio-smoothcache --speedup 2
    python -m tools.sample.stable_audio --prompt "Rain on a tin roof" --seconds 10
    python -m tools.sample.stable_audio --library diffusers --speedup 2 --schedule twice.json
    python -m tools.sample.stable_audio --small --steps 50 --speedup 2 --schedule digits.json

What caching adds to the code of the library is one `with`. A schedule is for one number of steps,
and for both libraries as far as the solvers are alike.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter, validators
from smoothcache_audio import load_model, prompt_sampler, sampler_of, save_wav
from smoothcache_audio.loading import SHIPPED_GUIDANCE, SHIPPED_SIGMAS, WORD_SECONDS
from smoothcache_core.errors import CommandError
from torch import Tensor

from tools.sample.options import Options, run_script
from tools.sample.running import Loaded, sample_with

_STEPS = 100  # of both libraries by default
PUBLISHED = "stabilityai/stable-audio-open-1.0"
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
    seconds: Annotated[
        float, Parameter(validator=validators.Number(gt=0.0), help="Length in seconds.")
    ] = 10.0,
    options: Options = Options(),  # noqa: B008 frozen, and the options' own defaults
) -> None:
    """Sample Stable Audio Open in either of its libraries, plain or by a schedule."""
    if options.small and library != "stable-audio-tools":
        raise CommandError("--small is a model of stable-audio-tools: leave out --library")
    with_library = with_diffusers if library == "diffusers" else with_stable_audio_tools
    guidance = 7.0 if options.guidance is None else options.guidance

    def loaded(steps: int) -> Loaded:
        if options.small:
            return small_model(options, steps)
        model = load_model(options.model or PUBLISHED, library=library, device=options.device)

        def sample(seed: int) -> tuple[Tensor, int]:
            return with_library(
                model, prompt, seconds=seconds, steps=steps, guidance=guidance, seed=seed
            )

        return Loaded(sampler=sampler_of(model, sample), sample=sample, save=save)

    sample_with(options, loaded, steps=_STEPS, output=Path("sound.wav"))


def small_model(options: Options, steps: int) -> Loaded:
    """Return the small model of spoken digits, which says \"seven\"."""
    sampler = prompt_sampler(
        load_model("spoken-digits", device=options.device),
        conditions=[7],
        steps=steps,
        guidance=SHIPPED_GUIDANCE if options.guidance is None else options.guidance,
        seconds=WORD_SECONDS,
        sigma_min=SHIPPED_SIGMAS[0],
        sigma_max=SHIPPED_SIGMAS[1],
    )

    def sample(seed: int) -> tuple[Tensor, int]:
        return sampler.decode(sampler.final_latent(seed))[0], sampler.sample_rate

    return Loaded(sampler=sampler, sample=sample, save=save)


def save(sound: tuple[Tensor, int], path: Path) -> Path:
    """Write a sound, (channels, samples), with its sample rate, and return the file."""
    return save_wav(sound[0], path, sample_rate=sound[1])


if __name__ == "__main__":
    run_script("stable_audio", main)
