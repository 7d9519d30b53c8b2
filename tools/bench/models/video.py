"""The shipped moving-digits model in the quality benchmark."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from smoothcache_core.numerics.arrays import Array
from smoothcache_video import clips
from smoothcache_video.conditions import choose_prompts
from smoothcache_video.judging import clip_judging
from smoothcache_video.loading import SHIPPED_GUIDANCE, load_pipeline
from smoothcache_video.sampling import PromptSampler, prompt_sampler
from torch import Tensor

from tools.bench.baselines.solvers import Axis, Grid, dpm_solver, fine, solvers_of
from tools.bench.models.model import Judgement, Modality, Solver, WithSteps, judgement_of
from tools.bench.models.video_policies import HOST, RANKS, TEA
from tools.bench.shared_weights import sharing

PACKAGES = ("torch", "diffusers", "smoothcache-core", "smoothcache-video", "cache-dit")
SOLVER, TITLE = "default", "rectified flow"
_AXIS = Axis(
    share=lambda timesteps: timesteps / 1000,
    timestep=lambda shares: shares * 1000,
    first=1000.0,
    last=1.0,
    end=0.0,
)
_CONFIG: Mapping[str, Any] = MappingProxyType(
    {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
)

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
    return Solver(
        title=TITLE,
        is_stochastic=False,
        exact=partial(_by, partial(dpm_solver, _CONFIG, _AXIS, fine, 3)),
        exact_settings={"solver": "DPM-Solver++ 3M", **settings},
    )


def _own_grid(sampler: PromptSampler) -> Grid:
    """Return the timesteps that the pipeline chooses for its clips."""

    def grid(axis: Axis, count: int) -> Array:
        del axis
        own = copy.deepcopy(sampler.pipe.scheduler)
        own.set_timesteps(count, height=clips.SIDE, width=clips.SIDE, num_frames=clips.FRAMES)
        return own.timesteps.double().numpy()

    return grid


def _others(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return other solvers of the model on all grids."""
    made = solvers_of(_CONFIG, _AXIS, {"the pipeline's own": _own_grid(sampler)})
    return {
        title: {words: partial(_by, make) for words, make in ways.items()}
        for title, ways in made.items()
    }


def _by(scheduler: Callable[[], Any], sampler: PromptSampler, steps: int) -> PromptSampler:
    sampler.pipe.scheduler = _Towards(scheduler())
    return replace(sampler, steps=steps)


class _Towards:
    """A scheduler of diffusers for a model whose velocity points to the data, not to the noise.

    Args:
        scheduler: The scheduler.
    """

    order = 1

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.config = scheduler.config

    @property
    def timesteps(self) -> Tensor:
        """Timesteps of the run."""
        return self._scheduler.timesteps

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **sizes: int) -> None:
        """Begin a run; the grid knows the sizes of clips."""
        del sizes
        self._scheduler.set_timesteps(num_inference_steps, device=device)

    def step(self, velocity: Tensor, timestep: Tensor, latent: Tensor) -> Any:
        """Take a step."""
        return self._scheduler.step(-velocity, timestep, latent)


def _fewer(sampler: PromptSampler) -> Mapping[str, Mapping[str, WithSteps]]:
    """Return the own solver; there is no other for its timesteps."""
    del sampler
    return {TITLE: {"": _with_steps}}


def _judged(sampler: PromptSampler, seeds: Sequence[int]) -> Judgement:
    judging = clip_judging(sampler, seeds, True, kind="gif")
    return judgement_of(sampler, judging.metrics, judging.summaries)


def _pictured(sampler: PromptSampler, latents: Tensor) -> Tensor:
    """Return the first, the middle and the last frame of every clip, below each other."""
    clips_of = sampler.decode(latents)
    frames = clips_of.shape[1]
    return torch.cat([clips_of[:, i] for i in (0, frames // 2, frames - 1)], dim=-2)


VIDEO = Modality(
    name="video",
    packages=PACKAGES,
    load=_load,
    owned=_owned,
    solver=_solver,
    fewer=_fewer,
    others=_others,
    host=HOST,
    judged=_judged,
    pictured=_pictured,
    notes=NOTES,
    pyramid=RANKS,
    tea=TEA,
    spreads=("flicker", "motion", "sharpness"),
)
