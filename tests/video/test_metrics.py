"""What the metrics of clips say of changes whose size is known."""

from typing import Any

import pytest
import torch
from smoothcache_core.errors import EvaluationError
from smoothcache_video.metrics import (
    clip_metrics,
    clip_summaries,
    flicker,
    frame_psnr_db,
    frame_ssim,
    motion,
    motion_error,
    moving_digit_summaries,
    sharpness,
)
from torch import Tensor

FRAMES, SIDE = 6, 16


def moving_ramp(frames: int = FRAMES) -> Tensor:
    """A soft edge that moves evenly, two clips of it."""
    place = torch.linspace(0, 1, SIDE)[None, :] + torch.linspace(0, 0.3, frames)[:, None]
    grey = (0.5 * place)[:, None, None, :].expand(-1, 3, SIDE, -1)
    return torch.stack([grey, 0.5 * grey])


def flashing(clips: Tensor, strength: float) -> Tensor:
    """Every other frame is brighter."""
    return clips + strength * (torch.arange(clips.shape[1]) % 2)[:, None, None, None]


def test_the_same_clips_are_at_no_distance():
    clips = moving_ramp()
    found = {name: metric(clips, clips.clone()) for name, metric in clip_metrics().items()}
    assert found["psnr_db"].tolist() == [100.0, 100.0]
    assert found["ssim"].tolist() == pytest.approx([1.0, 1.0])
    assert found["motion_error"].tolist() == [0.0, 0.0]
    for name in ("flicker_ratio", "motion_ratio", "sharpness_ratio"):
        assert found[name].tolist() == [1.0, 1.0]


def test_psnr_is_the_mean_of_the_frames():
    plain = torch.zeros(1, 2, 3, SIDE, SIDE)
    other = plain.clone()
    other[:, 0], other[:, 1] = 0.1, 0.01
    assert frame_psnr_db(plain, other).item() == pytest.approx(30.0)
    assert frame_psnr_db(plain, plain + torch.tensor([0.0, 0.1])[:, None, None, None]).item() == (
        pytest.approx(60.0)
    )


def test_ssim_sees_structure_that_is_gone():
    clips = torch.rand(2, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    flat = clips.mean(dim=(-1, -2), keepdim=True).expand_as(clips)
    assert (frame_ssim(clips, flat) < 0.2).all()
    assert (frame_ssim(clips, 0.99 * clips) > 0.99).all()


def test_an_error_that_stands_still_is_no_error_of_motion():
    clips = moving_ramp()
    assert motion_error(clips, clips + 0.1).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    still = clips[:, :1].expand_as(clips)
    assert motion_error(clips, still).tolist() == [1.0, 1.0]
    assert motion_error(still, clips).isinf().all()
    assert motion_error(still, still).tolist() == [0.0, 0.0]


def test_even_motion_does_not_flicker_and_flashing_does():
    clips = moving_ramp()
    assert flicker(clips).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert flicker(flashing(clips, 0.1)).tolist() == pytest.approx([0.2, 0.2], rel=1e-4)
    assert motion(flashing(clips, 0.1)).mean() > motion(clips).mean()


def test_flicker_is_told_relative_to_the_plain_clip():
    plain, worse = flashing(moving_ramp(), 0.05), flashing(moving_ramp(), 0.1)
    ratio = clip_metrics()["flicker_ratio"]
    assert ratio(plain, worse).tolist() == pytest.approx([2.0, 2.0], rel=1e-4)
    still = torch.zeros(1, FRAMES, 3, SIDE, SIDE)
    assert ratio(still, flashing(still, 0.1)).isinf().all()


def test_what_users_complain_of_is_seen():
    clips = moving_ramp()
    metrics = clip_metrics()
    still = clips[:, :1].expand_as(clips)
    assert metrics["motion_ratio"](clips, still).tolist() == [0.0, 0.0]
    noisy = torch.rand(1, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(noisy[0], 3, stride=1, padding=1)[None]
    assert metrics["sharpness_ratio"](noisy, blurred).item() < 0.6
    assert sharpness(torch.full((1, 2, 3, 4, 4), 0.3)).item() == 0.0


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_have_no_flicker(frames: int):
    clips = moving_ramp(frames)
    assert flicker(clips).tolist() == [0.0, 0.0]
    assert motion_error(clips, clips).tolist() == [0.0, 0.0]


def test_summaries_are_means_over_the_clips():
    clips = flashing(moving_ramp(), 0.1)
    found = {name: summary(clips) for name, summary in clip_summaries().items()}
    assert found["flicker"] == pytest.approx(0.2, rel=1e-4)
    assert found["motion"] == pytest.approx(float(motion(clips).mean()), rel=1e-5)
    assert set(found) == {"flicker", "motion", "sharpness"}


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), "must be clips"),
        (torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 3, 3, 8, 8), "must be clips"),
        (torch.zeros(0, 2, 3, 8, 8), torch.zeros(0, 2, 3, 8, 8), "not empty"),
        (torch.zeros(1, 2, 3, 8, 8), torch.full((1, 2, 3, 8, 8), torch.nan), "must be finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(one: Tensor, other: Tensor, message: str):
    for metric in clip_metrics().values():
        with pytest.raises(EvaluationError, match=message):
            metric(one, other)


def test_frames_below_the_window_of_ssim_are_refused():
    small = torch.zeros(1, 2, 3, 8, 8)
    with pytest.raises(EvaluationError, match="windows of 11 x 11 pixels, and frames have 8 x 8"):
        frame_ssim(small, small)


class Stub:
    """Takes the brightness of a clip for its digit, and that of its last frame for its way."""

    def __call__(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        digit = (10 * videos.mean(dim=(1, 2, 3, 4))).round().long()
        way = (10 * videos[:, -1].mean(dim=(1, 2, 3))).round().long()
        return torch.eye(10)[digit], torch.eye(10)[way]

    def features(self, videos: Tensor) -> Tensor:
        return videos.mean(dim=(3, 4)).flatten(1)


def test_digits_and_directions_are_counted_apart():
    stub: Any = Stub()
    clips = torch.tensor([0.3, 0.5])[:, None, None, None, None].expand(2, 3, 1, 8, 8)
    real = stub.features(clips)
    found = moving_digit_summaries([3, 5], [3, 9], classifier=stub, real=real)
    assert {name: summary(clips) for name, summary in found.items()} == {
        "accuracy": 1.0,
        "direction_accuracy": 0.5,
        "frechet": pytest.approx(0.0, abs=1e-6),
    }
