"""Clips of a report as comparisons for its page."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from smoothcache_video.clip_media import compared_clips


def report(**samples: torch.Tensor) -> Any:
    return SimpleNamespace(rows=[SimpleNamespace(policy=name) for name in samples], samples=samples)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_clips_play_beside_plain_with_a_still(suffix: str):
    if suffix == ".mp4":
        pytest.importorskip("av")
    clips = torch.rand(2, 5, 1, 32, 32)
    (first, _) = compared_clips(
        report(plain=clips, half=clips * 0.9), ["a", "b"], fps=8.0, suffix=suffix
    )
    (variant,) = first.variants
    assert variant.difference is not None
    assert variant.media.file == f"samples/half-0{suffix}"
    assert variant.difference.file == f"samples/half-0-difference{suffix}"
    assert variant.media.kind == ("picture" if suffix == ".gif" else "clip")
    assert (variant.media.width, variant.media.height) == (96, 96)
    assert variant.media.preview is not None
    assert Image.open(io.BytesIO(variant.media.preview.content or b"")).size == (96, 96)
