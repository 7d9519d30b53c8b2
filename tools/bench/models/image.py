"""The shipped digits models in the quality benchmark."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from smoothcache_image import load_pipeline
from smoothcache_image.loading import DIGITS_GUIDANCE, Solver as SolverName, with_solver
from smoothcache_image.metrics import digit_summaries, picture_metrics
from smoothcache_image.sampling import PromptSampler, prompt_sampler

from tools.bench.models.image_policies import HOST
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
    exact = _exact_scheduler(sampler.pipe.scheduler)
    return Solver(
        title=solver_title(sampler.pipe.scheduler),
        is_stochastic=sampler.pipe.scheduler.config.get("algorithm_type", "").startswith("sde"),
        exact=partial(_by, lambda: exact),
        exact_settings={key: str(value) for key, value in sorted(exact.config.items())},
    )


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


def _exact_scheduler(own: Any) -> Any:
    """Return the scheduler of the exact solution.

    Of the spacings only "trailing" makes 1000 timesteps that are all different.
    """
    solver = with_solver(own, "dpmsolver++")
    return solver if _is_flow(own) else _with_spacing(solver, "trailing")


IMAGE = Modality(
    name="image",
    packages=PACKAGES,
    load=_load,
    owned=_owned,
    solver=_solver,
    fewer=_fewer,
    host=HOST,
    judged=_judged,
    notes=NOTES,
)
