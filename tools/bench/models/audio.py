"""The shipped spoken-digits model in the quality benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from smoothcache_audio import PromptSampler, load_model, prompt_sampler
from smoothcache_audio.conditions import choose_conditions
from smoothcache_audio.judging import sound_judging
from smoothcache_audio.loading import SHIPPED_GUIDANCE, SHIPPED_SIGMAS
from smoothcache_audio.metrics import spectrogram_db
from smoothcache_audio.stable_audio_tools import solvers_of as names_of
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.patching import replaced
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tools.bench.baselines.solvers import Axis, dpm_solver, fine, solvers_of
from tools.bench.models.audio_policies import TEA, host
from tools.bench.models.model import Judgement, Modality, Solver, WithSteps, judgement_of
from tools.bench.shared_weights import sharing

PACKAGES = (
    "torch",
    "stable-audio-tools",
    "k-diffusion",
    "diffusers",
    "smoothcache-core",
    "smoothcache-audio",
    "dit-smoothcache",
    "cache-dit",
)
_CONFIG: Mapping[str, Any] = MappingProxyType({"prediction_type": "sample"})
_REPLACED = "dpmpp-2m"  # the function of k-diffusion in whose place others are put
_RANGE_DB = 80.0  # levels that spectrograms show, down from full scale
_SIDE = 96  # of spectrograms: more frames than a second has, and a fifth of the frequencies
_TITLES = {
    "dpmpp-2m": "DPM-Solver++ 2M",
    "dpmpp-2m-sde": "SDE-DPM-Solver++ 2M",
    "dpmpp-3m-sde": "SDE-DPM-Solver++ 3M",
}

NOTES = (
    "Noise that a solver adds comes from the seed: the plain run, every policy and fewer steps "
    "follow the same Brownian path.",
    "log_spectral_distance_db, mel_l1 (natural logarithms; 0.115 is 1 dB), multi_resolution_stft, "
    "si_sdr_db and snr_db compare decoded waveforms with those of the plain run, mean over all "
    "samples; kl is the divergence of what the classifier hears in them, in nats.",
    "frechet (classifier features, to recordings of held-out voices) and accuracy (the classifier "
    "hears the digit asked for) are over all samples of a policy.",
    "TransformerBlock is registered with diffusers' caches (fora+taylor, first-block-cache, "
    "magcache), and CacheMixin added to the class of a copy of the transformer inside: they know "
    "no model of stable-audio-tools. The hooks are diffusers' own. cache-dit is told the list of "
    "blocks (pattern 3).",
)


def _load(model: str, solver: str, steps: int, device: str) -> PromptSampler:
    if solver not in names_of("v"):
        raise ValueError(f"no solver is called {solver!r}; there are {sorted(names_of('v'))}")
    loaded = load_model(model, library="stable-audio-tools", device=device, dtype="float32")
    least, most = SHIPPED_SIGMAS
    return prompt_sampler(
        loaded,
        conditions=choose_conditions(loaded, labels=None, prompts=(), digits=True),
        steps=steps,
        guidance=SHIPPED_GUIDANCE,
        solver=solver,
        sigma_min=least,
        sigma_max=most,
    )


def _owned(sampler: PromptSampler, samples: int) -> PromptSampler:
    model = sampler.pipe
    copied = sharing(model, keep=(model.pretransform, model.conditioner))
    return replace(sampler, pipe=copied, samples=samples)


def _solver(sampler: PromptSampler) -> Solver:
    axis = _axis(sampler)
    return Solver(
        title=solver_title(sampler.sampler_type),
        is_stochastic=sampler.sampler_type.endswith("-sde"),
        exact=partial(_by_scheduler, partial(dpm_solver, _CONFIG, axis, fine, 3)),
        exact_settings={"solver": "DPM-Solver++ 3M", "noise": f"{sampler.sigma_max:g}"},
    )


def _axis(sampler: PromptSampler) -> Axis:
    """Return how much noise there is at the timesteps of the model, from 0 to 1."""

    def share(timesteps: Array) -> Array:
        noise = np.tan(timesteps * np.pi / 2)
        return noise / (1 + noise)

    def timestep(shares: Array) -> Array:
        return np.arctan(shares / (1 - shares)) * 2 / np.pi

    first, last = (
        float(np.arctan(noise) * 2 / np.pi) for noise in (sampler.sigma_max, sampler.sigma_min)
    )
    return Axis(share=share, timestep=timestep, first=first, last=last, end=0.0)


def _others(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return other solvers of the model on all grids."""
    return {
        title: {words: partial(_by_scheduler, make) for words, make in ways.items()}
        for title, ways in solvers_of(_CONFIG, _axis(sampler)).items()
    }


def _by_scheduler(
    scheduler: Callable[[], Any], sampler: PromptSampler, steps: int
) -> Callable[[int], Tensor]:
    """Return what samples by a scheduler of diffusers, which k-diffusion's loop makes room for."""
    import k_diffusion

    solved = replace(sampler, sampler_type=_REPLACED, steps=steps)

    def sampled(seed: int) -> Tensor:
        loop = partial(_denoised, scheduler())
        with replaced(k_diffusion.sampling, "sample_dpmpp_2m", loop):
            return solved(seed)

    return sampled


def _denoised(
    scheduler: Any,
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any],
    **others: object,
) -> Tensor:
    """Sample as the functions of k-diffusion do, which scale the signal to 1 and not the latent."""
    del others
    scheduler.set_timesteps(len(sigmas) - 1)
    x = x / (1 + sigmas[0] ** 2).sqrt()
    pairs = zip(scheduler.timesteps, scheduler.sigmas, strict=False)  # the last is that of the end
    for timestep, noise in pairs:
        scaled = x * (1 + noise**2).sqrt()
        denoised = model(scaled, noise.expand(len(x)).to(x), **extra_args)
        x = scheduler.step(denoised, timestep, x).prev_sample
    return x


def solver_title(name: str) -> str:
    """Return the name of a solver for readers."""
    return _TITLES.get(name, name)


def _fewer(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return the own solver and that of second order, of the same noise."""
    noise = "-sde" if sampler.sampler_type.endswith("-sde") else ""
    names = dict.fromkeys((sampler.sampler_type, f"dpmpp-2m{noise}"))
    return {solver_title(name): {"": partial(_by, name)} for name in names}


def _by(solver: str, sampler: PromptSampler, steps: int) -> PromptSampler:
    return replace(sampler, sampler_type=solver, steps=steps)


def _judged(sampler: PromptSampler, seeds: Sequence[int]) -> Judgement:
    judging = sound_judging(sampler, seeds, True)
    return judgement_of(sampler, judging.metrics, judging.summaries)


def _pictured(sampler: PromptSampler, latents: Tensor) -> Tensor:
    """Return grey spectrograms as squares, low frequencies below."""
    sounds = sampler.decode(latents).mean(dim=1)
    levels = spectrogram_db(sounds, sample_rate=sampler.sample_rate).flip(-2)
    grey = (levels / _RANGE_DB + 1.0).clamp(0.0, 1.0).float()
    square = adaptive_avg_pool2d(grey[:, None], (_SIDE, _SIDE))
    return square.expand(-1, 3, -1, -1)


def audio() -> Modality:
    """Return the modality; stable-audio-tools is loaded."""
    return Modality(
        name="audio",
        packages=PACKAGES,
        load=_load,
        owned=_owned,
        solver=_solver,
        fewer=_fewer,
        others=_others,
        host=host(),
        tea=TEA,
        judged=_judged,
        pictured=_pictured,
        notes=NOTES,
    )
