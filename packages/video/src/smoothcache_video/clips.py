"""Real clips of moving digits: what the small shipped video model learned to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FRAMES, SIDE, FPS = 8, 32, 8
"""Frames of a clip, height and width in pixels, and frames per second at which it is watched."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = ("left", "right", "up", "down")

_STEPS = torch.tensor([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])
"""Of every direction, to the right and down."""

_DIGIT = 18  # sides of a digit in pixels
_TRAVEL = 12  # pixels from the first frame to the last; a digit just stays inside the clip
_ALONG, _ACROSS = 1.0, 3.0  # pixels that a path is displaced by, at most, along it and across it


def prompt_of(digit: int, direction: int) -> str:
    """Return what the model is asked for, as `"a seven moving left"`.

    Args:
        digit: Number of the digit, 0 to 9.
        direction: Number of the direction in `DIRECTIONS`.
    """
    return f"a {DIGITS[digit]} moving {DIRECTIONS[direction]}"


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips and what is in them.

    Attributes:
        videos: (batch, frames, 1, height, width), from 0, paper, to 1, ink.
        digits: (batch,) int64, from 0 to 9.
        directions: (batch,) int64, places in `DIRECTIONS`.
    """

    videos: Tensor
    digits: Tensor
    directions: Tensor


def real_digits() -> tuple[Tensor, Tensor]:
    """Return the 1797 handwritten digits of scikit-learn.

    Returns:
        Pictures, (1797, 1, 8, 8) from 0, paper, to 1, ink, and labels, (1797,) int64.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pictures = torch.as_tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return pictures, torch.as_tensor(bunch.target, dtype=torch.int64)


def moving(
    pictures: Tensor, directions: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Return clips of pictures that move evenly along a line whose place is drawn at random.

    Args:
        pictures: Digits, (batch, 1, 8, 8), from 0 to 1.
        directions: Where each goes, (batch,), places in `DIRECTIONS`.
        generator: Where places are drawn from.

    Returns:
        (batch, frames, 1, height, width), from 0 to 1.
    """
    step = _STEPS[directions]
    reach = torch.where(step != 0, _ALONG, _ACROSS)
    start = (2 * torch.rand(step.shape, generator=generator) - 1) * reach
    times = torch.linspace(-0.5, 0.5, FRAMES)
    centres = start[:, None] + _TRAVEL * times[:, None] * step[:, None]  # (batch, frames, 2)
    scale = SIDE / _DIGIT
    maps = torch.zeros(*centres.shape[:2], 2, 3)
    maps[..., 0, 0] = maps[..., 1, 1] = scale
    maps[..., 2] = -scale * centres / (SIDE / 2)
    each = pictures[:, None].expand(-1, FRAMES, -1, -1, -1).flatten(0, 1)
    grid = functional.affine_grid(
        maps.flatten(0, 1), [len(each), 1, SIDE, SIDE], align_corners=False
    )
    drawn = functional.grid_sample(each, grid, mode="bicubic", align_corners=False)
    return drawn.clamp(0, 1).unflatten(0, (len(pictures), FRAMES))


def real_clips(count: int, *, seed: int) -> Clips:
    """Return clips of real digits, drawn at random.

    Args:
        count: How many clips to draw.
        seed: Decides which digits, directions and paths.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures, labels = real_digits()
    index = torch.randint(len(labels), (count,), generator=generator)
    directions = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    videos = moving(pictures[index], directions, generator=generator)
    return Clips(videos=videos, digits=labels[index], directions=directions)
