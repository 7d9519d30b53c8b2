"""The small network that grades the samples of the shipped model of moving digits.

It was trained on real clips by `tools/train/moving_digits.py`. Its answers grade samples (is it the
digit that was asked for, and does it move where it was told to?), and its penultimate features
serve to compare sets of clips, as features of a video network do in the Fréchet video distance
(arXiv 1812.01717).
"""

from __future__ import annotations

from importlib import resources

from torch import Tensor, nn

CLASSIFIER_FILE = "moving-digits-classifier.safetensors"
"""Name of the packaged weights inside `smoothcache_video/data`."""


class ClipClassifier(nn.Module):
    """A small convolutional network over space and time that names a digit and its direction.

    It holds no dropout and no batch statistics, so it answers the same in train and eval mode, and
    takes clips of any number of frames.

    Args:
        num_features: Length F of the penultimate feature vector.
    """

    def __init__(self, num_features: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_halving_block(1, 16), *_halving_block(16, 32), *_halving_block(32, 64)
        )
        self.summary = nn.Sequential(nn.Linear(64 * 4 * 4, num_features), nn.SiLU())
        self.digit = nn.Linear(num_features, 10)
        self.direction = nn.Linear(num_features, 4)

    def features(self, videos: Tensor) -> Tensor:
        """Describe each clip by its penultimate activations.

        Args:
            videos: Clips of shape (batch, frames, 1 or 3, 32, 32), values from 0 to 1. Colour is
                averaged to grey.

        Returns:
            Features of shape (batch, F), unbounded.
        """
        grey = videos.mean(dim=2, keepdim=True).transpose(1, 2)
        out: Tensor = self.summary(self.body(grey * 2 - 1).mean(dim=2).flatten(1))
        return out

    def forward(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Score each clip against the ten digits and the four directions.

        Args:
            videos: Clips of shape (batch, frames, 1 or 3, 32, 32), values from 0 to 1.

        Returns:
            Logits of the digits, (batch, 10), and of `DIRECTIONS`, (batch, 4), unbounded.
        """
        features = self.features(videos)
        return self.digit(features), self.direction(features)


def load_clip_classifier() -> ClipClassifier:
    """Load the packaged classifier.

    Returns:
        The trained classifier in float32, on the CPU, in eval mode, needing no gradients.
    """
    from safetensors.torch import load

    packaged = resources.files("smoothcache_video") / "data" / CLASSIFIER_FILE
    state = {name: value.float() for name, value in load(packaged.read_bytes()).items()}
    classifier = ClipClassifier(num_features=state["digit.weight"].shape[1])
    classifier.load_state_dict(state)
    return classifier.eval().requires_grad_(False)


def _halving_block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """Layers that turn (B, channels_in, T, H, W) into (B, channels_out, T, H/2, W/2)."""
    return (
        nn.Conv3d(channels_in, channels_out, 3, stride=(1, 2, 2), padding=1),
        nn.GroupNorm(4, channels_out),
        nn.SiLU(),
    )
