"""Rectified flow: timesteps, steps along the line, wrong numbers."""

from typing import Any

import pytest
import torch
from smoothcache_core.errors import PipelineError
from smoothcache_video.open_sora import RectifiedFlowScheduler


def moved(steps: int, ratio: float) -> torch.Tensor:
    shares = 1 - torch.arange(steps) / steps
    return 1000 * ratio * shares / (1 + (ratio - 1) * shares)


@pytest.mark.parametrize(
    ("height", "width", "frames", "ratio"),
    [
        (512, 512, 1, 1.0),
        (256, 256, 1, 0.5),
        (144, 256, 51, (144 * 256 / 512**2 * 15) ** 0.5),  # 51 frames are 15 of the latent
        (512, 512, 17, 5**0.5),
        (512, 512, 8, 1.0),  # fewer than 17 count as one
    ],
)
def test_timesteps_move_with_size_and_frames(height: int, width: int, frames: int, ratio: float):
    scheduler = RectifiedFlowScheduler()
    scheduler.set_timesteps(30, height=height, width=width, num_frames=frames)
    assert torch.allclose(scheduler.timesteps, moved(30, ratio), rtol=1e-5)
    assert scheduler.timesteps[0] == 1000
    assert len(scheduler.timesteps) == 30


def test_every_run_begins_at_exactly_the_timestep_of_noise():
    scheduler = RectifiedFlowScheduler()
    for side in range(16, 400, 8):  # in float32 a moved 1 may well be 1 + 1e-7
        scheduler.set_timesteps(4, height=side, width=48, num_frames=34)
        assert scheduler.timesteps[0] == 1000


def test_timesteps_stay_where_they_are_without_the_transform():
    scheduler = RectifiedFlowScheduler(use_timestep_transform=False)
    scheduler.set_timesteps(4, height=64, width=64, num_frames=51)
    assert scheduler.timesteps.tolist() == [1000, 750, 500, 250]


def test_whole_timesteps():
    scheduler = RectifiedFlowScheduler(use_timestep_transform=False, use_discrete_timesteps=True)
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [1000, 667, 333]


def test_with_the_true_velocity_one_step_and_many_end_at_the_data():
    data, noise = torch.randn(2, 1, 4, 3, 8, 8)
    for steps in (1, 7):
        scheduler = RectifiedFlowScheduler()
        scheduler.set_timesteps(steps, height=64, width=64, num_frames=3)
        latent = noise
        for t in scheduler.timesteps:
            assert torch.allclose(latent, scheduler.add_noise(data, noise, t[None]), atol=1e-5)
            latent = scheduler.step(data - noise, t, latent).prev_sample
        assert torch.allclose(latent, data, atol=1e-5)


def test_a_run_may_begin_in_the_middle():
    scheduler = RectifiedFlowScheduler(use_timestep_transform=False)
    scheduler.set_timesteps(4)
    found = scheduler.step(torch.ones(1), scheduler.timesteps[2], torch.zeros(1)).prev_sample
    assert found == 0.25
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(3)
    scheduler.step(torch.ones(1), scheduler.timesteps[3], torch.zeros(1))
    assert scheduler.step_index == 4


@pytest.mark.parametrize("wrong", [{"num_inference_steps": 0}, {"height": 0}, {"num_frames": 0}])
def test_nothing_to_sample_is_refused(wrong: dict[str, Any]):
    chosen: dict[str, Any] = {"num_inference_steps": 4} | wrong
    with pytest.raises(PipelineError, match="at least 1, got"):
        RectifiedFlowScheduler().set_timesteps(**chosen)
