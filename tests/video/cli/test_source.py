"""What a command samples, from its options."""

from pathlib import Path

import pytest
from smoothcache_core.errors import CommandError
from smoothcache_video.cli import ClipSource
from smoothcache_video.clips import FPS, FRAMES
from smoothcache_video.loading import SHIPPED_GUIDANCE


def test_the_shipped_model_has_settings_of_its_own():
    source = ClipSource(samples=20, seed=5, device="cpu")
    assert (source.run_samples, source.seeds) == (10, range(5, 7))
    sampler = source.sampler(steps=2)
    assert (sampler.guidance, sampler.frames, sampler.fps) == (SHIPPED_GUIDANCE, FRAMES, FPS)
    assert len(set(sampler.conditions)) == len(sampler.conditions) == 40
    assert len({prompt.split()[1] for prompt in sampler.conditions[:10]}) > 4
    assert len({prompt.split()[3] for prompt in sampler.conditions[:10]}) == 4


def test_another_model_has_none(open_sora_folder: Path):
    source = ClipSource(model=str(open_sora_folder), device="cpu", prompts=("a fox",), samples=3)
    sampler = source.sampler(steps=2)
    assert (sampler.guidance, sampler.frames, sampler.fps) == (None, None, None)
    assert source.seeds == range(3)


def test_what_is_given_counts(open_sora_folder: Path):
    sampler = ClipSource(
        model=str(open_sora_folder), device="cpu", prompts=("a fox",), guidance=2.0, height=32,
        width=16, frames=2, fps=30.0,
    ).sampler(steps=2)  # fmt: skip
    assert (sampler.height, sampler.width, sampler.frames, sampler.fps) == (32, 16, 2, 30.0)
    assert sampler.guidance == 2.0
    assert sampler(0).shape == (1, 4, 2, 8, 4)


def test_a_batch_that_leaves_samples_over_is_refused():
    with pytest.raises(CommandError, match="--batch 3 must divide --samples 20"):
        ClipSource(samples=20, batch=3)
