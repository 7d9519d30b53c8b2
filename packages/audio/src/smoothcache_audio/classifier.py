"""The small network that grades the samples of the shipped spoken-digits model.

It was trained by `tools/train/spoken_digits.py`, on voices that the model never heard. Its answers
grade samples (does a clip asked to be a three sound like a three?) and its penultimate features
serve to compare sets of clips, as the Inception features do for photographs.
"""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000
"""Samples per second of every spoken digit of this package."""

CLASSIFIER_FILE = "spoken-digits-classifier.safetensors"
"""Name of the packaged weights inside `smoothcache_audio/data`."""

REFERENCE = "reference_features"
"""Name, in that file, of the features of real clips."""

_WINDOW, _HOP, _BANDS = 512, 160, 40
"""Samples of a window (32 ms) and a hop (10 ms), and mel bands: as the packaged weights expect."""


class SpokenDigitClassifier(nn.Module):
    """A small convolutional network on the log-mel spectrogram that names a spoken digit.

    It holds no dropout and no batch statistics, so it answers the same in train and eval mode, and
    the same for a clip whatever else is in its batch.

    Args:
        num_features: Length F of the penultimate feature vector.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, num_features: int = 64) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(_WINDOW // 2 + 1, _BANDS))
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.body = nn.Sequential(
            *_halving_block(1, 16), *_halving_block(16, 32), *_halving_block(32, 64)
        )
        self.summary = nn.Sequential(nn.Linear(2 * 64 * _BANDS // 8, num_features), nn.SiLU())
        self.head = nn.Linear(num_features, 10)

    def features(self, waveforms: Tensor) -> Tensor:
        """Describe each clip by its penultimate activations.

        Args:
            waveforms: Clips at 16 kHz, (B, 1, N) or (B, N), values about in [-1, 1], N at least
                512.

        Returns:
            Features of shape (B, F), unbounded.
        """
        maps = self.body(self._log_mel(waveforms.flatten(start_dim=1)))
        over_time = torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1)
        out: Tensor = self.summary(over_time.flatten(start_dim=1))
        return out

    def logits(self, waveforms: Tensor) -> Tensor:
        """Score each clip against the ten digits.

        Args:
            waveforms: Clips at 16 kHz, (B, 1, N) or (B, N), values about in [-1, 1], N at least
                512.

        Returns:
            Logits of shape (B, 10), unbounded; column k belongs to digit k.
        """
        out: Tensor = self.head(self.features(waveforms))
        return out

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the `logits`."""
        return self.logits(waveforms)

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """(B, N) to (B, 1, 1 + N // 160, 40), about zero mean and unit spread."""
        spectra = torch.stft(
            waveforms.float(), _WINDOW, _HOP, window=self.window, return_complex=True
        )
        power = spectra.real.square() + spectra.imag.square()
        mel = power.transpose(1, 2) @ self.filters
        return ((mel + 1e-4).log().unsqueeze(1) + 4.0) / 4.0


def load() -> SpokenDigitClassifier:
    """Load the packaged classifier.

    Returns:
        The trained classifier in float32, on the CPU, in eval mode, needing no gradients.
    """
    state = _packaged()
    del state[REFERENCE]
    classifier = SpokenDigitClassifier(num_features=state["head.weight"].shape[1])
    classifier.load_state_dict(state)
    return classifier.eval().requires_grad_(False)


def reference_features() -> Tensor:
    """Return the features of real clips, to measure a Frechet distance to.

    The clips are in the voices that the model learned, ten digits alike, but none of them is among
    those that it learned from.

    Returns:
        (1000, F) float32, as `SpokenDigitClassifier.features` gives them, of the digits zero to
        nine again and again.
    """
    return _packaged()[REFERENCE]


def _packaged() -> dict[str, Tensor]:
    from safetensors.torch import load as from_safetensors

    packaged = resources.files("smoothcache_audio") / "data" / CLASSIFIER_FILE
    return {name: value.float() for name, value in from_safetensors(packaged.read_bytes()).items()}


def _halving_block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """Layers that turn (B, channels_in, T, F) into (B, channels_out, T/2, F/2)."""
    return (
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.GroupNorm(4, channels_out),
        nn.SiLU(),
    )
