"""The shipped moving-digits model in the quality benchmark."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from smoothcache_video import clips
from smoothcache_video.conditions import choose_prompts
from smoothcache_video.judging import clip_judging
from smoothcache_video.loading import SHIPPED_GUIDANCE, load_pipeline
from smoothcache_video.sampling import PromptSampler, prompt_sampler

from tools.bench.models.model import Judgement, Modality, Solver, WithSteps, judgement_of
from tools.bench.models.video_policies import HOST, RANKS, TEA
from tools.bench.shared_weights import sharing

PACKAGES = ("torch", "diffusers", "smoothcache-core", "smoothcache-video", "cache-dit")
SOLVER, TITLE = "default", "rectified flow"

NOTES = (
    "psnr_db, ssim and motion_error (of frame differences) compare decoded clips with those of the "
    "plain run; flicker, motion and sharpness are levels of the clips by themselves (mean absolute "
    "second and first difference of brightness in time, and that of neighbouring pixels), and with "
    "_ratio the mean of each clip's over that of its plain clip.",
    "flicker_off, motion_off and sharpness_off are how far these levels are from those of the "
    "plain run, over the standard deviation of the plain run's levels from evaluation seed to "
    "evaluation seed: up to 1 a change is no larger than another seed makes.",
    "frechet (classifier features, to real clips), accuracy (the classifier sees the digit asked "
    "for) and direction_accuracy (it sees it move where it was told to) are over all samples of a "
    "policy.",
    "pab is pyramid attention broadcast (arXiv 2408.12588) by its published ranges, and for less "
    "compute by longer ones over more of the run, also of feed-forwards; which, was chosen on the "
    "calibration samples.",
    "teacache is TeaCache (arXiv 2411.19108) written again for this model: its polynomial is "
    "fitted to the calibration samples.",
    "The exact solution is by the same solver, Euler's, in many steps.",
    "fora+taylor is diffusers' own TaylorSeer, with CacheMixin added to the class of a copy of the "
    "denoiser. diffusers' caches of blocks (first-block-cache, magcache) know no lists of these "
    "names, and cache-dit none that alternate.",
)


def _load(model: str, solver: str, steps: int, device: str) -> PromptSampler:
    if solver != SOLVER:
        raise ValueError(f"the model has one solver, {SOLVER!r}, not {solver!r}")
    pipe: Any = load_pipeline(model, device=device, dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(
        pipe,
        conditions=choose_prompts(pipe, labels=None, prompts=(), digits=True),
        steps=steps,
        guidance=SHIPPED_GUIDANCE,
        frames=clips.FRAMES,
        height=clips.SIDE,
        width=clips.SIDE,
        fps=clips.FPS,
    )


def _owned(sampler: PromptSampler, samples: int) -> PromptSampler:
    """Return a copy that can run at the same time as others, stopped between evaluations."""
    pipe = copy.copy(sampler.pipe)
    pipe.transformer = sharing(sampler.pipe.transformer)
    pipe.scheduler = copy.deepcopy(sampler.pipe.scheduler)
    pipe.vae = copy.copy(sampler.pipe.vae)  # on which a sampler puts off decoding
    return replace(sampler, pipe=pipe, samples=samples)


def _with_steps(sampler: PromptSampler, steps: int) -> PromptSampler:
    return replace(sampler, steps=steps)


def _solver(sampler: PromptSampler) -> Solver:
    settings = {key: str(value) for key, value in sorted(sampler.pipe.scheduler.config.items())}
    return Solver(title=TITLE, is_stochastic=False, exact=_with_steps, exact_settings=settings)


def _fewer(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return the own solver; there is no other for its timesteps."""
    del sampler
    return {TITLE: {"": _with_steps}}


def _judged(sampler: PromptSampler, seeds: Sequence[int]) -> Judgement:
    judging = clip_judging(sampler, seeds, True, kind="gif")
    return judgement_of(sampler, judging.metrics, judging.summaries)


VIDEO = Modality(
    name="video",
    packages=PACKAGES,
    load=_load,
    owned=_owned,
    solver=_solver,
    fewer=_fewer,
    host=HOST,
    judged=_judged,
    notes=NOTES,
    pyramid=RANKS,
    tea=TEA,
    spreads=("flicker", "motion", "sharpness"),
)
