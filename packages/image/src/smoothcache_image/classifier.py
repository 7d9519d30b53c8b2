"""The small digit classifier that grades the samples of the shipped digits model.

The classifier was trained on the bundled digits of scikit-learn by `tools/train/digits.py`. Its
answers grade samples (does a picture asked to be a three look like a three?) and its penultimate
features serve to compare sets of pictures, as the Inception features do for photographs.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 32
"""Height and width, in pixels, of every digit picture of this package."""

CLASSIFIER_FILE = "digits-classifier.safetensors"
"""Name of the packaged weights inside `smoothcache_image/data`."""


class DigitClassifier(nn.Module):
    """A small convolutional network that names a handwritten digit.

    It holds no dropout and no batch statistics, so it answers the same in train and eval mode.

    Args:
        num_features: Length F of the penultimate feature vector.
    """

    def __init__(self, num_features: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_halving_block(1, 16),
            *_halving_block(16, 32),
            *_halving_block(32, 64),
            nn.Flatten(),
            nn.Linear(64 * (IMAGE_SIZE // 8) ** 2, num_features),
            nn.SiLU(),
        )
        self.head = nn.Linear(num_features, 10)

    def features(self, x: Tensor) -> Tensor:
        """Describe each picture by its penultimate activations.

        Args:
            x: Pictures of shape (B, 1, 32, 32) or (B, 3, 32, 32), values in [0, 1]. Colour is
                averaged to grey.

        Returns:
            Features of shape (B, F), unbounded.
        """
        grey = x.mean(dim=1, keepdim=True)
        out: Tensor = self.body(grey * 2 - 1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Score each picture against the ten digits.

        Args:
            x: Pictures of shape (B, 1, 32, 32) or (B, 3, 32, 32), values in [0, 1].

        Returns:
            Logits of shape (B, 10), unbounded; column k belongs to digit k.
        """
        logits: Tensor = self.head(self.features(x))
        return logits


def load_digit_classifier() -> DigitClassifier:
    """Load the packaged classifier.

    Returns:
        The trained classifier in float32, on the CPU, in eval mode, needing no gradients.
    """
    from safetensors.torch import load

    packaged = resources.files("smoothcache_image") / "data" / CLASSIFIER_FILE
    state = {name: value.float() for name, value in load(packaged.read_bytes()).items()}
    classifier = DigitClassifier(num_features=state["head.weight"].shape[1])
    classifier.load_state_dict(state)
    return classifier.eval().requires_grad_(False)


def real_digits() -> tuple[Tensor, Tensor]:
    """Return the real handwritten digits that scikit-learn bundles, enlarged to 32 x 32.

    Returns:
        The pictures, float32 of shape (1797, 1, 32, 32) with values in [0, 1] (0 is paper, 1 is
        ink), and their labels, int64 of shape (1797,) with values 0 to 9.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    small = torch.as_tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    size = (IMAGE_SIZE, IMAGE_SIZE)
    large = functional.interpolate(small, size=size, mode="bicubic", align_corners=False)
    return large.clamp(0, 1), torch.as_tensor(bunch.target, dtype=torch.int64)


def _halving_block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """Layers that turn (B, channels_in, H, W) into (B, channels_out, H/2, W/2)."""
    return (
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.GroupNorm(4, channels_out),
        nn.SiLU(),
    )
