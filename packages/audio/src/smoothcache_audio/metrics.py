"""Judging sounds: metrics and summaries for `smoothcache_core.evaluate`.

Metrics compare a cached run's waveforms with the plain run's from the same noise, both
(n, channels, samples) with full scale at -1 and 1, and give one value per sound, (n,) float64.
They are computed in float64 on the CPU. Sounds of any length above zero will do: spectra take
what is before and after a sound for silence.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
import torchaudio
from smoothcache_core.errors import EvaluationError
from smoothcache_core.evaluation import class_divergence, class_summaries
from smoothcache_core.metrics import relative_l2
from torch import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]

FLOOR_DB = -100.0
"""Lowest level there is; the rounding noise of 16-bit files is at -101 dB."""

AUDIBLE_DB = 80.0
"""How far below the loudest part of a plain sound something counts; the rest is silence."""

WINDOW_SECONDS = 0.046
"""Length of a window of spectra: 1024 samples at 22.05 kHz, as HiFi-GAN has, or 2048 at 44.1."""
MEL_BANDS = 80
"""Bands of mel spectra, as HiFi-GAN has them (arXiv 2010.05646)."""
SMALLEST_MEL_AMPLITUDE = 1e-5
"""Amplitudes below are taken for this before the logarithm, as HiFi-GAN's code does."""
SMALLEST_STFT_POWER = 1e-7
"""Powers below are taken for this before the logarithm, as in the code of arXiv 1910.11480."""
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window length in samples, as published (arXiv 1910.11480)."""


class WaveformClassifier(Protocol):
    """Names mono sounds, (n, samples) at the rate it was trained with."""

    def logits(self, waveforms: Tensor) -> Tensor:
        """Return the scores of the classes, (n, classes)."""
        ...

    def features(self, waveforms: Tensor) -> Tensor:
        """Return what the last layer sees, (n, F)."""
        ...


def waveform_metrics(sample_rate: int) -> dict[str, Metric]:
    """Return the metrics of waveforms, (n, channels, samples), each by the name of its function.

    Args:
        sample_rate: Samples per second of the waveforms, above 0.
    """
    _check_rate(sample_rate)

    def log_spectral(reference: Tensor, candidate: Tensor) -> Tensor:
        return log_spectral_distance_db(reference, candidate, sample_rate=sample_rate)

    def mel(reference: Tensor, candidate: Tensor) -> Tensor:
        return mel_l1(reference, candidate, sample_rate=sample_rate)

    return {
        "log_spectral_distance_db": log_spectral,
        "mel_l1": mel,
        "multi_resolution_stft": multi_resolution_stft,
        "si_sdr_db": si_sdr_db,
        "snr_db": snr_db,
    }


# ---------------------------------------------------------------------------- spectra


def log_spectral_distance_db(reference: Tensor, candidate: Tensor, *, sample_rate: int) -> Tensor:
    """Return the log-spectral distance of every sound.

    The root mean square over frequencies of the difference of the levels, averaged over frames and
    channels (Gray and Markel, Distance measures for speech processing, 1976). Levels are those of
    `spectrogram_db`, at least those of 80 dB below the loudest of the reference.

    Args:
        reference: Waveforms, (n, channels, samples).
        candidate: What they became, same shape.
        sample_rate: Samples per second, above 0.

    Returns:
        (n,) in decibels, at least 0: 0 where both are the same or too quiet to count.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """
    return _one_by_one(partial(_log_spectral_db, sample_rate), *_checked(reference, candidate))


def _log_spectral_db(sample_rate: int, expected: Tensor, given: Tensor) -> Tensor:
    levels = [spectrogram_db(sound, sample_rate=sample_rate) for sound in (expected, given)]
    least = (levels[0].amax(dim=(1, 2, 3), keepdim=True) - AUDIBLE_DB).clamp(min=FLOOR_DB)
    levels = [torch.maximum(level, least) for level in levels]
    return (levels[1] - levels[0]).square().mean(dim=2).sqrt().mean(dim=(1, 2))


def spectrogram_db(waveforms: Tensor, *, sample_rate: int) -> Tensor:
    """Return the levels of sounds over time and frequency.

    A Hann window of about 46 ms, every quarter of it. Powers are divided by the sum of the squared
    window, so white noise of root mean square r has a level of about 20 log10 r at any rate.

    Args:
        waveforms: (..., samples), full scale at -1 and 1, at least 1 sample.
        sample_rate: Samples per second, above 0.

    Returns:
        (..., frequencies, frames) float64 in decibels, at least -100: frequency k of K is
        k / (K - 1) of half the sample rate, frame j is at `j * hop_length(sample_rate)` samples.
    """
    length = window_length(sample_rate)
    spectrogram = torchaudio.transforms.Spectrogram(
        n_fft=length,
        hop_length=hop_length(sample_rate),
        power=2.0,
        normalized="window",
        pad_mode="constant",
    ).double()
    power = spectrogram(waveforms.detach().cpu().double())
    floor = 10.0 ** (FLOOR_DB / 10.0)
    return torchaudio.functional.amplitude_to_DB(power, 10.0, amin=floor, db_multiplier=0.0)


def window_length(sample_rate: int) -> int:
    """Return the power of two that is nearest to 46 ms, in samples: 1024 at 16 and 22.05 kHz."""
    _check_rate(sample_rate)
    return max(16, 2 ** round(math.log2(WINDOW_SECONDS * sample_rate)))


def hop_length(sample_rate: int) -> int:
    """Return the distance of two frames in samples."""
    return window_length(sample_rate) // 4


def mel_l1(reference: Tensor, candidate: Tensor, *, sample_rate: int) -> Tensor:
    """Return the mean absolute difference of the log-mel spectrograms of every sound.

    Natural logarithms of mel amplitudes of at least 1e-5, as the loss of HiFi-GAN takes them (arXiv
    2010.05646), with 80 bands (Slaney's scale and norm) from 0 to half the sample rate.

    Args:
        reference: Waveforms, (n, channels, samples).
        candidate: What they became, same shape.
        sample_rate: Samples per second, above 0.

    Returns:
        (n,), at least 0, where 0.115 is a difference of 1 dB: 0 where both are the same or silent.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """
    sounds = _checked(reference, candidate)
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=sample_rate,
        n_fft=window_length(sample_rate),
        hop_length=hop_length(sample_rate),
        power=1.0,
        n_mels=MEL_BANDS,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    ).double()

    def distance(expected: Tensor, given: Tensor) -> Tensor:
        logs = [mel(sound).clamp(min=SMALLEST_MEL_AMPLITUDE).log() for sound in (expected, given)]
        return (logs[1] - logs[0]).abs().mean(dim=(1, 2, 3))

    return _one_by_one(distance, *sounds)


def multi_resolution_stft(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the multi-resolution STFT distance of every sound (arXiv 1910.11480).

    The mean over three resolutions of the spectral convergence, |X - Y|_F / |X|_F of the
    magnitudes X of the reference and Y of the candidate, and the mean of |log X - log Y|, with
    magnitudes of at least sqrt(1e-7) under the logarithm.

    Args:
        reference: Waveforms, (n, channels, samples).
        candidate: What they became, same shape.

    Returns:
        (n,), at least 0: 0 where both are the same, infinite where only the reference is silent.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """
    sounds = _checked(reference, candidate)
    distances = [_one_by_one(partial(_stft_distance, *each), *sounds) for each in RESOLUTIONS]
    return torch.stack(distances).mean(dim=0)


def _stft_distance(size: int, hop: int, length: int, expected: Tensor, given: Tensor) -> Tensor:
    stft = torchaudio.transforms.Spectrogram(
        n_fft=size, win_length=length, hop_length=hop, power=1.0, pad_mode="constant"
    ).double()
    magnitudes = stft(expected), stft(given)
    logs = [x.clamp(min=math.sqrt(SMALLEST_STFT_POWER)).log() for x in magnitudes]
    return relative_l2(*magnitudes) + (logs[1] - logs[0]).abs().mean(dim=(1, 2, 3))


def _one_by_one(distance: Metric, reference: Tensor, candidate: Tensor) -> Tensor:
    """Judge sound by sound: the spectra of all at once would take much memory."""
    pairs = zip(reference.split(1), candidate.split(1), strict=True)
    return torch.cat([distance(expected, given) for expected, given in pairs])


# ---------------------------------------------------------------------------- waveforms


def si_sdr_db(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio of every sound (arXiv 1811.02508).

    With the channels one after the other as one signal, so that they share one scale.

    Args:
        reference: Waveforms, (n, channels, samples).
        candidate: What they became, same shape.

    Returns:
        (n,) in decibels: infinite where both are the same, minus infinite where only one of them is
        silent. A scaled copy is at the limit of the arithmetic, about 156 dB.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    expected, given = (sound.flatten(start_dim=1) for sound in _checked(reference, candidate))
    norms = [torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (expected, given)]
    silent = (torch.minimum(*norms) == 0.0).squeeze(1)
    scaled = [x / norm for x, norm in zip((expected, given), norms, strict=True)]
    ratio = scale_invariant_signal_distortion_ratio(preds=scaled[1], target=scaled[0])
    ratio = torch.where(silent, -math.inf, ratio)
    return torch.where((expected == given).all(dim=1), math.inf, ratio)


def snr_db(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the signal-to-noise ratio of every sound, the noise being what caching changed.

    Args:
        reference: Waveforms, (n, channels, samples).
        candidate: What they became, same shape.

    Returns:
        (n,) in decibels: infinite where both are the same, minus infinite where only the reference
        is silent.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """
    return -20.0 * relative_l2(*_checked(reference, candidate)).log10()


def _checked(reference: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != candidate.shape or reference.ndim != 3 or not reference.numel():
        raise EvaluationError(
            "reference and candidate must be waveforms (n, channels, samples) of one shape and not "
            f"empty, got {tuple(reference.shape)} and {tuple(candidate.shape)}"
        )
    sounds = reference.detach().cpu().double(), candidate.detach().cpu().double()
    for name, sound in zip(("reference", "candidate"), sounds, strict=True):
        broken = (~sound.isfinite()).flatten(start_dim=1).any(dim=1).nonzero().flatten()
        if len(broken):
            raise EvaluationError(
                f"waveforms must be finite, but those of the {name} are not at {broken.tolist()}"
            )
    return sounds


def _check_rate(sample_rate: int) -> None:
    if not sample_rate > 0:
        raise EvaluationError(f"sample_rate must be above 0 samples per second, got {sample_rate}")


# ---------------------------------------------------------------------------- spoken digits


def digit_metrics(classifier: WaveformClassifier) -> dict[str, Metric]:
    """Return the metric of spoken digits, `"kl"`.

    The Kullback-Leibler divergence of what the classifier hears in a sound from what it hears in
    the plain run's, in nats, see `smoothcache_core.kl_divergence`.

    Args:
        classifier: Names the digits of waveforms at its rate; the mean of channels is taken.
    """
    return {"kl": class_divergence(logits=_of_mono(classifier.logits))}


def digit_summaries(
    labels: Sequence[int], *, classifier: WaveformClassifier, real: Tensor
) -> Mapping[str, Summary]:
    """Return the summaries of spoken digits.

    Args:
        labels: The digit, 0 to 9, that each sound was asked to be.
        classifier: Names the digits of waveforms at its rate; the mean of channels is taken.
        real: The classifier's features of real recordings, (m, F), at least 2 rows.

    Returns:
        `"accuracy"` and `"frechet"`, see `smoothcache_core.class_summaries`.
    """
    return class_summaries(
        labels,
        logits=_of_mono(classifier.logits),
        features=_of_mono(classifier.features),
        real=real,
    )


def _of_mono(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of waveforms (n, channels, samples) that takes the mean of the channels."""
    return lambda waveforms: function(waveforms.mean(dim=1))
