"""From calibrating the shipped digits model to planned schedules at work on it."""

from typing import Any

import numpy as np
import pytest
import torch
from smoothcache_core import Calibration, Schedule, cached, calibrate, fit, plan
from smoothcache_core.sources import smooth_to_compute
from smoothcache_image import adapter_for, load_pipeline
from smoothcache_image.sampling import PromptSampler, prompt_sampler
from torch import Tensor

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # diffusers
]
STEPS, BATCH = 10, 4
CALIBRATED, UNSEEN = (0, 1), (100, 101)


@pytest.fixture(scope="module")
def sampler() -> PromptSampler:
    pipe: Any = load_pipeline(device="cpu", dtype="float32", solver="dpmsolver++")
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(pipe, conditions=range(10), steps=STEPS, samples=BATCH)


@pytest.fixture(scope="module")
def calibration(sampler: PromptSampler) -> Calibration:
    return calibrate(sampler, seeds=CALIBRATED, max_lag=4, sensitivity=1, progress=False)


@pytest.fixture(scope="module")
def plain(sampler: PromptSampler) -> Tensor:
    return torch.stack([sampler(seed) for seed in UNSEEN])


def realised(sampler: PromptSampler, schedule: Schedule, plain: Tensor) -> float:
    """Return the relative error of the samples of unseen seeds."""
    pipe = sampler.pipe
    with cached(
        pipe.transformer, adapter_for(pipe.transformer), schedule, scheduler=pipe.scheduler
    ) as stats:
        found = torch.stack([sampler(seed) for seed in UNSEEN])
    assert stats.recomputed == 0
    assert stats.runs == len(UNSEEN)
    return float((found - plain).norm() / plain.norm())


def smoothcache(calibration: Calibration, compute: float) -> Schedule:
    """Return SmoothCache's schedule of the least compute that is not below `compute`."""
    for allowed in np.arange(compute, 1.0, 0.01).tolist():
        schedule = smooth_to_compute(calibration, compute=allowed, max_lag=3)
        if schedule.compute_fraction() >= compute:
            return schedule
    raise AssertionError("SmoothCache has no such schedule")


@pytest.mark.parametrize("target", ["auto", "denoiser", "guidance", "site"])
def test_a_plan_keeps_its_promise_and_beats_smoothcache(
    sampler: PromptSampler, calibration: Calibration, plain: Tensor, target: str
):
    assert not calibration.remark
    schedule = plan(calibration, compute=0.5, target=target)
    assert schedule.compute_fraction() <= 0.5
    assert schedule.prediction is not None
    error = realised(sampler, schedule, plain)
    assert schedule.prediction.error / 3 < error < schedule.prediction.error * 3
    other = smoothcache(calibration, schedule.compute_fraction())
    assert error < realised(sampler, other, plain)


def test_the_guidance_of_the_pipeline_is_learned(calibration: Calibration):
    assert calibration.dynamics is not None
    weights = calibration.dynamics.response.weights
    np.testing.assert_allclose(weights, np.tile([4.0, -3.0], (STEPS, 1)), atol=1e-3)
    assert calibration.dynamics.conditional == 0


def test_scales_and_shifts_of_channels_bring_block_caching_nearer(
    sampler: PromptSampler, calibration: Calibration, plain: Tensor
):
    schedule = plan(calibration, compute=0.6, target="accumulated")
    assert schedule.source.name == "accumulated"
    scaled = fit(sampler, schedule, seeds=CALIBRATED[:1], channels=True, progress=False)
    assert scaled.channels is not None
    assert realised(sampler, scaled, plain) < 0.9 * realised(sampler, schedule, plain)
