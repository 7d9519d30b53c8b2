"""The shipped digits models in the quality benchmark."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
from smoothcache_image import load_pipeline
from smoothcache_image.loading import DIGITS_GUIDANCE, Solver as SolverName, with_solver
from smoothcache_image.metrics import digit_summaries, picture_metrics
from smoothcache_image.sampling import PromptSampler, prompt_sampler

from tools.bench.baselines.solvers import Axis, dpm_solver, fine, solvers_of
from tools.bench.models.image_policies import HOST, TEA
from tools.bench.models.model import Judgement, Modality, Solver, WithSteps, judgement_of
from tools.bench.shared_weights import sharing

CLASSES = range(10)
PACKAGES = ("torch", "diffusers", "smoothcache-core", "dit-smoothcache", "cache-dit")

NOTES = (
    "psnr_db compares decoded pictures. frechet (classifier features, to the real digits of "
    "scikit-learn) and accuracy (the classifier sees the digit asked for) are over all samples of "
    "a policy. They are sanity checks: better solvers lower them as well.",
    "DiTTransformer2DModel offers none of diffusers' own caches (fora+taylor, first-block-cache, "
    "magcache): it has no CacheMixin. Here the mixin is added to the class of a copy; the hooks "
    "are diffusers' own. MagCache's ratios are those of its own calibration mode.",
)


def _load(model: str, solver: str, steps: int, device: str) -> PromptSampler:
    solvers: Sequence[SolverName] = get_args(SolverName)
    if solver not in solvers:
        raise ValueError(f"no solver is called {solver!r}; there are {list(solvers)}")
    chosen = solvers[solvers.index(solver)]
    pipe: Any = load_pipeline(model, device=device, dtype="float32", solver=chosen)
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(
        pipe, conditions=CLASSES, steps=steps, guidance=DIGITS_GUIDANCE, samples=1
    )


def _owned(sampler: PromptSampler, samples: int) -> PromptSampler:
    """Return a copy that can run at the same time as others, stopped between evaluations."""
    pipe = copy.copy(sampler.pipe)
    pipe.transformer = sharing(sampler.pipe.transformer)
    pipe.scheduler = copy.deepcopy(sampler.pipe.scheduler)  # solvers remember outputs
    pipe.vae = copy.copy(sampler.pipe.vae)  # on which a sampler puts off decoding
    return replace(sampler, pipe=pipe, samples=samples)


def _judged(sampler: PromptSampler, seeds: Sequence[int]) -> Judgement:
    labels = [label for seed in seeds for label in sampler.conditions_of(seed)]
    return judgement_of(sampler, picture_metrics(), digit_summaries(labels))


# ---------------------------------------------------------------------------- solvers


def solver_title(scheduler: Any) -> str:
    """Return the name of a scheduler for readers."""
    name = type(scheduler).__name__.removesuffix("Scheduler")
    if name != "DPMSolverMultistep":
        return name
    config = scheduler.config
    if config["use_flow_sigmas"] and config["solver_order"] == 1:
        return "Euler"  # what the first order is for a flow
    noise = "SDE-" if config["algorithm_type"].startswith("sde") else ""
    return f"{noise}DPM-Solver++ {config['solver_order']}M"


def _solver(sampler: PromptSampler) -> Solver:
    own = sampler.pipe.scheduler
    axis = _axis(sampler)
    exact = partial(dpm_solver, _config(own), axis, fine, 3)
    return Solver(
        title=solver_title(own),
        is_stochastic=own.config.get("algorithm_type", "").startswith("sde"),
        exact=partial(_by, exact),
        exact_settings={"solver": "DPM-Solver++ 3M", "first timestep": f"{axis.first:g}"},
    )


def _config(own: Any) -> Mapping[str, Any]:
    """Return what other schedulers are to know of a model."""
    return with_solver(own, "dpmsolver++").config


def _axis(sampler: PromptSampler) -> Axis:
    """Return how much noise there is at timesteps, from that of the run's first evaluation on."""
    scheduler = copy.deepcopy(sampler.pipe.scheduler)
    scheduler.set_timesteps(sampler.steps)
    if _is_flow(scheduler):
        first = 1000 * float(scheduler.sigmas[0])  # its timesteps are rounded
        return Axis(
            share=lambda t: t / 1000, timestep=lambda s: s * 1000, first=first, last=1.0, end=0.0
        )
    kept = scheduler.alphas_cumprod.double().numpy()
    noise = ((1 - kept) / kept) ** 0.5
    shares, all_timesteps = noise / (1 + noise), np.arange(len(noise))
    return Axis(
        share=lambda t: np.interp(t, all_timesteps, shares),
        timestep=lambda s: np.interp(s, shares, all_timesteps),
        first=float(scheduler.timesteps[0]),
        last=0.0,
        end=-1.0,
    )


def _others(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return other solvers of the model on all grids."""
    made = solvers_of(_config(sampler.pipe.scheduler), _axis(sampler))
    return {
        title: {words: partial(_by, make) for words, make in ways.items()}
        for title, ways in made.items()
    }


def _fewer(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return the own solver, and good other ones, at all spacings of timesteps they know."""
    own = sampler.pipe.scheduler
    found = [own] if _is_flow(own) else [own, with_solver(own, "ddim")]
    found.append(with_solver(own, "dpmsolver++"))
    return {solver_title(scheduler): _spaced(scheduler) for scheduler in found}


def _spaced(scheduler: Any) -> dict[str, WithSteps]:
    if _is_flow(scheduler):
        return {"": partial(_by, partial(copy.deepcopy, scheduler))}
    return {
        f"{spacing} timesteps": partial(_by, partial(_with_spacing, scheduler, spacing))
        for spacing in ("leading", "linspace", "trailing")
    }


def _by(scheduler: Callable[[], Any], sampler: PromptSampler, steps: int) -> PromptSampler:
    sampler.pipe.scheduler = scheduler()
    return replace(sampler, steps=steps)


def _is_flow(scheduler: Any) -> bool:
    return "flow" in scheduler.config.get("prediction_type", "flow")


def _with_spacing(scheduler: Any, spacing: str) -> Any:
    return type(scheduler).from_config(scheduler.config, timestep_spacing=spacing)


IMAGE = Modality(
    name="image",
    packages=PACKAGES,
    load=_load,
    owned=_owned,
    solver=_solver,
    fewer=_fewer,
    others=_others,
    host=HOST,
    tea=TEA,
    judged=_judged,
    pictured=lambda sampler, latents: sampler.decode(latents),
    notes=NOTES,
)
