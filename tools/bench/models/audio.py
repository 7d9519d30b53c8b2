"""The shipped spoken-digits model in the quality benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from smoothcache_audio import PromptSampler, load_model, prompt_sampler
from smoothcache_audio.conditions import choose_conditions
from smoothcache_audio.judging import sound_judging
from smoothcache_audio.loading import SHIPPED_GUIDANCE, SHIPPED_SIGMAS
from smoothcache_audio.stable_audio_tools import solvers_of

from tools.bench.models.audio_policies import host
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
EXACT = "dpmpp-2m"
"""Solver of the exact solution."""
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
    if solver not in solvers_of("v"):
        raise ValueError(f"no solver is called {solver!r}; there are {sorted(solvers_of('v'))}")
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
    return Solver(
        title=solver_title(sampler.sampler_type),
        is_stochastic=sampler.sampler_type.endswith("-sde"),
        exact=partial(_by, EXACT),
        exact_settings={"solver": replace(sampler, sampler_type=EXACT).solver_name or EXACT},
    )


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


def audio() -> Modality:
    """Return the modality; stable-audio-tools is loaded."""
    return Modality(
        name="audio",
        packages=PACKAGES,
        load=_load,
        owned=_owned,
        solver=_solver,
        fewer=_fewer,
        host=host(),
        judged=_judged,
        notes=NOTES,
    )
