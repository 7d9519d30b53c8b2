"""Samples of a report as comparisons for its page."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from smoothcache_core.evaluation.comparing import compared_pictures


def pixels(content: bytes | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content or b"")))


def report(**samples: torch.Tensor) -> Any:
    return SimpleNamespace(rows=[SimpleNamespace(policy=name) for name in samples], samples=samples)


def test_pictures_stand_beside_plain_with_ten_times_the_difference():
    plain = torch.full((3, 3, 4, 6), 0.5)
    found = compared_pictures(report(plain=plain, half=plain + 0.02), ["zero", "one"])
    assert [each.caption for each in found] == ["zero", "one"]
    (variant,) = found[1].variants
    assert variant.difference is not None
    assert variant.media.file == "samples/half-1.png"
    assert variant.difference.alt == "what differs from plain in one, half, times 10"
    assert pixels(found[1].plain.content).shape == (4, 6, 3)
    assert (found[1].plain.width, found[1].plain.height) == (6, 4)
    assert pixels(variant.difference.content).max() == round(0.2 * 255)


def test_large_pictures_are_made_smaller_and_grey_ones_are_shown():
    found = compared_pictures(report(plain=torch.zeros(1, 1, 300, 1024)), ["a"])
    assert pixels(found[0].plain.content).shape == (150, 512, 3)


def test_no_more_captions_than_samples_are_shown():
    assert len(compared_pictures(report(plain=torch.zeros(1, 3, 4, 4)), ["a", "b"])) == 1
