"""Spoken digits, made with espeak-ng: who says them, how, and how a clip is cut.

Everything is drawn from seeds, so that the same espeak-ng gives the same clips.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from smoothcache_audio.classifier import SAMPLE_RATE
from smoothcache_audio.loading import DIGITS
from torch import Tensor
from torchaudio.transforms import Resample
from tqdm import tqdm

from tools.train.espeak import Espeak

CLIP = 12800  # samples, 0.8 s
SECONDS = (0.36, 0.56)  # how long a word lasts: the same for all words, so no hint which it is
USUAL_RATE = 160  # words per minute
FADE = 160  # samples, 10 ms


@dataclass(frozen=True)
class Speakers:
    """Who speaks in one part of the data, and the seed of that part."""

    name: str
    accents: Sequence[str]
    variants: Sequence[str]
    seed: int

    def voices(self) -> list[str]:
        """Every accent with every variant, as espeak-ng names them."""
        return [f"{accent}+{variant}" for accent in self.accents for variant in self.variants]


GENERATOR = Speakers("generator", ("en-us", "en"), ("m1", "m2", "m3", "m4", "f1", "f2", "f3"), 1)
REFERENCE = Speakers("reference", GENERATOR.accents, GENERATOR.variants, 2)
CLASSIFIER = Speakers(
    "classifier",
    ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc"),
    ("m5", "m6", "m7", "f4", "f5", "Alex", "Annie", "Andy", "linda", "david", "edward", "steph"),
    3,
)
HELD_OUT = Speakers(
    "held-out", ("en-us", "en", "en-gb-x-rp"), ("m8", "Michael", "belinda", "Andrea", "benjamin"), 4
)


@dataclass
class Clips:
    """Clips of one part of the data.

    Attributes:
        waveforms: (N, 12800) float32 in [-1, 1].
        digits: (N,) int64, 0 to 9.
        seconds: (N,) float32, length of the word in the clip.
    """

    waveforms: Tensor
    digits: Tensor
    seconds: Tensor


def speak(speakers: Speakers, per_word: int) -> Clips:
    """Let speakers say every digit `per_word` times, in voices taken in turn."""
    booth, voices = Booth(speakers.seed), speakers.voices()
    digits = [digit for _ in range(per_word) for digit in range(len(DIGITS))]
    spoken = []
    for number, digit in enumerate(tqdm(digits, desc=speakers.name, mininterval=5)):
        voice = voices[number // len(DIGITS) % len(voices)]
        spoken.append(booth.record(DIGITS[digit], voice))
    waveforms, seconds = zip(*spoken, strict=True)
    return Clips(torch.stack(waveforms), torch.tensor(digits), torch.tensor(seconds))


class Booth:
    """Where words are recorded, each at a random speed, pitch, loudness and place in its clip."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._engine = Espeak(seed)
        self._resample = Resample(self._engine.sample_rate, SAMPLE_RATE)
        self._usual: dict[tuple[str, str], int] = {}

    def record(self, word: str, voice: str) -> tuple[Tensor, float]:
        """Record a word once: a clip (12800,), and the length of the word in seconds."""
        draw = self._draw
        wanted = draw.uniform(*SECONDS) * self._engine.sample_rate
        rate = min(max(round(USUAL_RATE * self._length(word, voice) / wanted), 80), 300)
        pitch, spread = draw.randint(35, 65), draw.randint(30, 70)
        said = trimmed(self._engine.say(word, voice=voice, rate=rate, pitch=pitch, spread=spread))
        cut = self._resample(said)[: CLIP - 2 * FADE]
        cut = cut * draw.uniform(0.5, 0.8) / cut.abs().max()
        cut[-FADE:] *= torch.linspace(1, 0, FADE)
        start = draw.randint(0, min(1600, CLIP - len(cut)))
        clip = torch.zeros(CLIP)
        clip[start : start + len(cut)] = cut
        return clip, len(cut) / SAMPLE_RATE

    def _length(self, word: str, voice: str) -> int:
        """Samples that a word lasts at the usual speed."""
        if (word, voice) not in self._usual:
            usual = self._engine.say(word, voice=voice, rate=USUAL_RATE, pitch=50, spread=50)
            self._usual[word, voice] = len(trimmed(usual))
        return self._usual[word, voice]


def trimmed(samples: Tensor, threshold: float = 0.01) -> Tensor:
    """Samples without the silence, below `threshold` of the peak, before and after the word."""
    loud = (samples.abs() > threshold * samples.abs().max()).nonzero()
    return samples[int(loud[0]) : int(loud[-1]) + 1]
