"""Real clips of moving digits, and the classifier that names what is in them."""

import pytest
import torch
from smoothcache_video.classifier import ClipClassifier, load_clip_classifier
from smoothcache_video.clips import DIRECTIONS, moving, prompt_of, real_clips, real_digits
from torch import Tensor


@pytest.fixture(scope="module")
def classifier() -> ClipClassifier:
    return load_clip_classifier()


def centres(videos: Tensor) -> Tensor:
    """Where the ink is, to the right and down in pixels, (batch, frames, 2)."""
    ink = videos[:, :, 0]
    places = torch.arange(ink.shape[-1]).float()
    total = ink.sum(dim=(2, 3))
    right = (ink.sum(dim=2) * places).sum(dim=-1) / total
    down = (ink.sum(dim=3) * places).sum(dim=-1) / total
    return torch.stack((right, down), dim=-1)


@pytest.mark.parametrize(
    ("direction", "moved"), [*enumerate([(-12, 0), (12, 0), (0, -12), (0, 12)])]
)
def test_a_digit_moves_where_its_prompt_says(direction: int, moved: tuple[int, int]):
    pictures, _ = real_digits()
    videos = moving(pictures[:5], torch.full((5,), direction))
    way = centres(videos)
    torch.testing.assert_close(
        way[:, -1] - way[:, 0], torch.tensor(moved).float().expand(5, -1), atol=0.3, rtol=0
    )
    steps = way.diff(dim=1)
    torch.testing.assert_close(
        steps, steps.mean(dim=1, keepdim=True).expand_as(steps), atol=0.2, rtol=0
    )


def test_prompts_name_the_digit_and_the_direction():
    assert prompt_of(7, DIRECTIONS.index("left")) == "a seven moving left"


def test_a_seed_decides_everything():
    one, same, other = (real_clips(4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.videos, same.videos)
    assert torch.equal(one.digits, same.digits)
    assert not torch.equal(one.videos, other.videos)


def test_real_clips_are_named(classifier: ClipClassifier):
    clips = real_clips(100, seed=11)
    digits, directions = classifier(clips.videos)
    assert (digits.argmax(dim=1) == clips.digits).float().mean() >= 0.95
    assert (directions.argmax(dim=1) == clips.directions).float().mean() >= 0.95


def test_a_clip_played_backwards_moves_the_other_way(classifier: ClipClassifier):
    clips = real_clips(40, seed=12)
    _, directions = classifier(clips.videos.flip(1))
    other = torch.tensor([1, 0, 3, 2])[clips.directions]
    assert (directions.argmax(dim=1) == other).float().mean() >= 0.95


def test_answers_do_not_depend_on_the_batch_or_on_colour(classifier: ClipClassifier):
    videos = real_clips(3, seed=13).videos
    alone = torch.cat([classifier.features(video[None]) for video in videos])
    torch.testing.assert_close(
        classifier.features(videos.expand(-1, -1, 3, -1, -1)), alone, rtol=1e-4, atol=1e-4
    )
