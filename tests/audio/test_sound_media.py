"""Sounds of a report as comparisons for its page."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from smoothcache_audio.sound_media import compared_sounds
from smoothcache_core.reports.page import Media

RATE = 8000


def report(**samples: torch.Tensor) -> Any:
    return SimpleNamespace(rows=[SimpleNamespace(policy=name) for name in samples], samples=samples)


def tone(seconds: float = 0.5, level: float = 0.5) -> torch.Tensor:
    times = torch.arange(int(seconds * RATE)) / RATE
    return level * torch.sin(2 * torch.pi * 1000 * times).expand(3, 2, -1)


def shown(media: Media | None) -> np.ndarray:
    assert media is not None
    return np.asarray(Image.open(io.BytesIO(media.content or b"")))


def test_sounds_play_beside_plain_with_spectrograms():
    found = compared_sounds(
        report(plain=tone(), half=tone(level=0.25)), ["a", "b"], sample_rate=RATE
    )
    assert [each.caption for each in found] == ["a", "b"]
    (variant,) = found[0].variants
    samples, rate = soundfile.read(io.BytesIO(variant.media.content or b""))
    assert (samples.shape, rate) == ((4000, 2), RATE)
    spectrogram = shown(found[0].plain.preview)
    loud = spectrogram.astype(int).sum(axis=(1, 2)).argmax() / len(spectrogram)
    assert 0.7 < loud < 0.8  # 1 kHz of 4, from below
    middle = shown(variant.difference)[int(loud * len(spectrogram)), spectrogram.shape[1] // 2]
    assert middle[2] > middle[0]  # 6 dB quieter: violet


def test_of_long_sounds_fewer_are_played():
    long = report(plain=torch.zeros(3, 1, 31 * 1000))
    found = compared_sounds(long, ["a", "b", "c"], sample_rate=1000)
    assert len(found) == 1
    assert shown(found[0].plain.preview).shape[1] <= 800
