import math
import warnings
from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from scipy import signal
from smoothcache_audio.metrics import (
    RESOLUTIONS,
    digit_metrics,
    digit_summaries,
    hop_length,
    log_spectral_distance_db,
    mel_l1,
    multi_resolution_stft,
    si_sdr_db,
    snr_db,
    spectrogram_db,
    waveform_metrics,
    window_length,
)
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import frechet_distance
from torch import Tensor

RATE = 16_000
RATES = [8_000, 16_000, 22_050, 44_100, 48_000]


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def lsd(reference: Tensor, candidate: Tensor) -> Tensor:
    return log_spectral_distance_db(reference, candidate, sample_rate=RATE)


def mel(reference: Tensor, candidate: Tensor) -> Tensor:
    return mel_l1(reference, candidate, sample_rate=RATE)


Compare = Callable[[Tensor, Tensor], Tensor]
DISTANCES: list[Compare] = [lsd, mel, multi_resolution_stft]
RATIOS: list[Compare] = [si_sdr_db, snr_db]


# ---------------------------------------------------------------------------- any metric


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", [(2, 1, 3000), (1, 2, 7), (3, 1, 1)])
def test_the_same_sounds_are_at_distance_zero(distance: Compare, shape: tuple[int, ...]):
    sounds = noise(*shape)
    assert distance(sounds, sounds.clone()).tolist() == [0.0] * shape[0]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    "sounds", [noise(2, 2, 40), torch.zeros(2, 1, 5)], ids=["noise", "silence"]
)
def test_the_same_sounds_have_an_infinite_ratio(ratio: Compare, sounds: Tensor):
    assert ratio(sounds, sounds.clone()).tolist() == [math.inf] * 2


@pytest.mark.parametrize("metric", DISTANCES + RATIOS)
def test_every_sound_is_judged_by_itself(metric: Compare):
    reference, candidate = noise(3, 2, 2000), noise(3, 2, 2000, seed=1)
    together = metric(reference, candidate)
    alone = [metric(r[None], c[None]).item() for r, c in zip(reference, candidate, strict=True)]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)
    assert (together.dtype, together.shape) == (torch.float64, (3,))


@pytest.mark.parametrize("metric", DISTANCES + RATIOS)
@pytest.mark.parametrize("length", [1, 2, 100])
def test_very_short_sounds_have_a_finite_value(metric: Compare, length: int):
    assert metric(noise(2, 1, length), noise(2, 1, length, seed=1)).isfinite().all()


@pytest.mark.parametrize("metric", DISTANCES + RATIOS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_metrics_are_computed_in_double_precision(metric: Compare, dtype: torch.dtype):
    reference, candidate = noise(1, 1, 600).to(dtype), noise(1, 1, 600, seed=1).to(dtype)
    assert torch.equal(metric(reference, candidate), metric(reference.double(), candidate.double()))


@pytest.mark.parametrize("metric", DISTANCES + RATIOS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(metric: Compare, broken: float):
    sounds = noise(3, 1, 50)
    other = sounds.clone()
    other[1, 0, 7] = broken
    with pytest.raises(EvaluationError, match=r"those of the candidate are not at \[1\]"):
        metric(sounds, other)
    with pytest.raises(EvaluationError, match=r"those of the reference are not at \[1\]"):
        metric(other, sounds)


@pytest.mark.parametrize("metric", DISTANCES + RATIOS)
@pytest.mark.parametrize(
    ("one", "other"),
    [((2, 1, 5), (2, 1, 6)), ((2, 1, 5), (1, 1, 5)), ((2, 5), (2, 5)), ((2, 1, 0), (2, 1, 0))],
    ids=["length", "batch", "channels", "empty"],
)
def test_shapes_that_do_not_fit_are_refused(
    metric: Compare, one: tuple[int, ...], other: tuple[int, ...]
):
    with pytest.raises(EvaluationError, match=r"must be waveforms \(n, channels, samples\)"):
        metric(torch.ones(one), torch.ones(other))


@pytest.mark.parametrize("rate", [0, -16_000])
def test_a_rate_that_is_none_is_refused(rate: int):
    with pytest.raises(EvaluationError, match="sample_rate must be above 0"):
        waveform_metrics(rate)


# ---------------------------------------------------------------------------- levels


@pytest.mark.parametrize("rate", RATES)
def test_levels_are_those_of_librosa(rate: int):
    sound = noise(3000)
    length = window_length(rate)
    stft = librosa.stft(
        sound.numpy(), n_fft=length, hop_length=hop_length(rate), pad_mode="constant"
    )
    energy = float(np.square(signal.get_window("hann", length)).sum())
    expected = librosa.power_to_db(np.abs(stft) ** 2 / energy, amin=1e-10, top_db=None)
    levels = spectrogram_db(sound, sample_rate=rate).numpy()
    loud = expected > -60.0
    assert levels[loud] == pytest.approx(expected[loud], abs=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_windows_last_about_46_milliseconds(rate: int):
    length = window_length(rate)
    assert 0.032 < length / rate < 0.066
    assert length & (length - 1) == 0
    assert hop_length(rate) == length / 4


def test_white_noise_has_its_own_level_at_every_frequency():
    levels = spectrogram_db(noise(400_000, scale=0.1), sample_rate=RATE)
    mean = 10 * (10 ** (levels / 10)).mean(dim=1).log10()
    assert mean[2:-2].numpy() == pytest.approx(-20.0, abs=0.8)


def test_silence_is_at_the_floor():
    assert (spectrogram_db(torch.zeros(2, 500), sample_rate=RATE) == -100.0).all()


@pytest.mark.parametrize("gain_db", [-20.0, -0.1, 30.0])
def test_log_spectral_distance_of_a_louder_sound_is_its_gain(gain_db: float):
    sounds = noise(2, 1, 3000)
    values = lsd(sounds, sounds * 10 ** (gain_db / 20)).tolist()
    assert values == pytest.approx([abs(gain_db)] * 2, rel=1e-4)


def test_log_spectral_distance_is_that_of_librosa():
    reference, candidate = noise(2, 2, 3000), noise(2, 2, 3000, seed=1)
    spectra = [
        np.abs(librosa.stft(x.numpy(), n_fft=1024, hop_length=256, pad_mode="constant")) ** 2
        for x in (reference, candidate)
    ]
    difference = 10 * np.log10(spectra[0]) - 10 * np.log10(spectra[1])
    expected = np.sqrt((difference**2).mean(axis=2)).mean(axis=(1, 2))
    assert lsd(reference, candidate).numpy() == pytest.approx(expected, rel=1e-5)


def test_what_nobody_hears_is_no_log_spectral_distance():
    silence = torch.zeros(1, 1, 3000)
    assert lsd(silence, noise(1, 1, 3000, scale=1e-7)).tolist() == [0.0]
    assert lsd(silence, noise(1, 1, 3000, scale=1e-3)).item() > 30.0
    half = torch.cat([noise(1, 1, 9000), torch.zeros(1, 1, 9000)], dim=2)
    assert lsd(half, half + noise(1, 1, 18_000, scale=1e-6)).item() < 0.01
    assert lsd(half, half + noise(1, 1, 18_000, scale=1e-4)).item() > 3.0


# ---------------------------------------------------------------------------- mel


@pytest.mark.parametrize("rate", RATES)
def test_mel_l1_is_that_of_librosa(rate: int):
    reference, candidate = noise(1, 2, 3000), noise(1, 2, 3000, seed=1, scale=0.02)
    spectra = [
        librosa.feature.melspectrogram(
            y=x[0].numpy(), sr=rate, n_fft=window_length(rate), hop_length=hop_length(rate),
            power=1.0, n_mels=80, pad_mode="constant",
        )
        for x in (reference, candidate)
    ]  # fmt: skip
    logs = [np.log(np.maximum(x, 1e-5)) for x in spectra]
    value = mel_l1(reference, candidate, sample_rate=rate).item()
    assert value == pytest.approx(np.abs(logs[0] - logs[1]).mean(), rel=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_mel_bands_are_never_empty(rate: int):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = mel_l1(torch.zeros(1, 1, 9000), noise(1, 1, 9000, scale=1.0), sample_rate=rate)
    assert value.item() > 9.0


@pytest.mark.parametrize("gain_db", [-20.0, -0.1, 20.0])
def test_mel_l1_of_a_louder_sound_is_its_gain(gain_db: float):
    sounds = noise(1, 1, 3000)
    gain = 10 ** (gain_db / 20)
    assert mel(sounds, sounds * gain).item() == pytest.approx(abs(math.log(gain)), abs=1e-9)


def test_a_decibel_is_the_mel_distance_that_is_promised():
    sounds = noise(1, 1, 3000)
    assert mel(sounds, sounds * 10 ** (1 / 20)).item() == pytest.approx(0.115, abs=5e-4)


# ---------------------------------------------------------------------------- several resolutions


def test_multi_resolution_stft_is_that_of_scipy():
    reference, candidate = noise(2, 1, 5000), noise(2, 1, 5000, seed=1, scale=0.05)
    totals = np.zeros(2)
    for size, hop, length in RESOLUTIONS:
        x, y = (
            scipy_magnitudes(sound[:, 0].numpy(), size, hop, length)
            for sound in (reference, candidate)
        )
        convergence = np.linalg.norm(x - y, axis=(1, 2)) / np.linalg.norm(x, axis=(1, 2))
        floor = np.sqrt(1e-7)
        logs = np.abs(np.log(np.maximum(x, floor)) - np.log(np.maximum(y, floor)))
        totals += convergence + logs.mean(axis=(1, 2))
    values = multi_resolution_stft(reference, candidate).numpy()
    assert values == pytest.approx(totals / len(RESOLUTIONS), rel=1e-9)


def scipy_magnitudes(sounds: np.ndarray, size: int, hop: int, length: int) -> np.ndarray:
    """Frames of a Hann window in the middle of `size` samples, one frame around every hop."""
    window = np.zeros(size)
    start = (size - length) // 2
    window[start : start + length] = signal.get_window("hann", length)
    padded = np.pad(sounds, ((0, 0), (size // 2, size // 2)))
    starts = range(0, sounds.shape[1] + 1, hop)
    frames = np.stack([padded[:, at : at + size] * window for at in starts], axis=1)
    return np.abs(np.fft.rfft(frames))


def test_multi_resolution_stft_of_half_the_amplitude_is_known():
    sounds = noise(1, 1, 5000, scale=0.5)
    value = multi_resolution_stft(sounds, sounds / 2).item()
    assert value == pytest.approx(0.5 + math.log(2), rel=1e-6)


def test_multi_resolution_stft_of_something_for_silence_is_infinite():
    silence, sound = torch.zeros(1, 1, 500), noise(1, 1, 500)
    assert multi_resolution_stft(silence, sound).item() == math.inf
    assert 1.0 < multi_resolution_stft(sound, silence).item() < math.inf


# ---------------------------------------------------------------------------- waveforms


def orthogonal(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two signals with nothing in common, of unit energy."""
    basis = torch.linalg.qr(noise(shape[0] * shape[1], 2)).Q
    return basis[:, 0].reshape(1, *shape), basis[:, 1].reshape(1, *shape)


@pytest.mark.parametrize("scale", [1.0, 0.25, -3.0])
@pytest.mark.parametrize("loudness", [1.0, 1e-9])
def test_si_sdr_is_the_energy_along_the_reference_over_the_rest(scale: float, loudness: float):
    reference, rest = orthogonal((2, 300))
    candidate = loudness * (scale * reference + 0.1 * rest)
    expected = 10 * math.log10(scale**2 / 0.01)
    assert si_sdr_db(reference, candidate).item() == pytest.approx(expected, abs=1e-6)


def test_snr_is_the_energy_of_the_reference_over_that_of_the_change():
    reference, rest = orthogonal((2, 300))
    assert snr_db(reference, reference + 0.1 * rest).item() == pytest.approx(20.0, abs=1e-9)
    assert snr_db(reference, 2 * reference).item() == pytest.approx(0.0, abs=1e-9)


def test_si_sdr_of_a_scaled_copy_is_at_the_limit_that_is_promised():
    sounds = noise(1, 1, 900)
    assert si_sdr_db(sounds, sounds * 2).item() == pytest.approx(156.0, abs=4.0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_something_for_silence_is_all_noise(ratio: Compare):
    assert ratio(torch.zeros(1, 1, 9), noise(1, 1, 9)).tolist() == [-math.inf]


def test_silence_for_something_is_all_that_changed():
    sounds, silence = noise(1, 1, 9), torch.zeros(1, 1, 9)
    assert snr_db(sounds, silence).tolist() == [0.0]
    assert si_sdr_db(sounds, silence).tolist() == [-math.inf]


# ---------------------------------------------------------------------------- for evaluate


def test_metrics_are_those_of_the_decoded_sounds():
    metrics = waveform_metrics(RATE)
    plain, other = noise(2, 1, 700, scale=0.01), noise(2, 1, 700, seed=1, scale=0.01)
    sounds = plain.cumsum(dim=-1), other.cumsum(dim=-1)
    expected = {
        "log_spectral_distance_db": lsd(*sounds),
        "mel_l1": mel(*sounds),
        "multi_resolution_stft": multi_resolution_stft(*sounds),
        "si_sdr_db": si_sdr_db(*sounds),
        "snr_db": snr_db(*sounds),
    }
    assert {name: metric(*sounds).tolist() for name, metric in metrics.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


class Loudest:
    """Takes the loudest of the first three samples for the class."""

    def logits(self, waveforms: Tensor) -> Tensor:
        return waveforms[:, :3]

    def features(self, waveforms: Tensor) -> Tensor:
        return waveforms[:, 3:]


def test_digits_are_named_from_the_mean_of_the_channels():
    mono = noise(4, 9)
    stereo = torch.stack([mono * 2, torch.zeros_like(mono)], dim=1)
    asked = mono[:, :3].argmax(dim=1)
    real = noise(7, 6, seed=1)
    summaries = digit_summaries(asked.tolist(), classifier=Loudest(), real=real)
    assert summaries["accuracy"](stereo) == 1.0
    assert summaries["frechet"](stereo) == pytest.approx(frechet_distance(real, mono[:, 3:]))
    metric = digit_metrics(Loudest())["kl"]
    known, said = mono[:, :3].softmax(dim=1), mono[:, :3].flip(0).softmax(dim=1)
    expected = (said * (said / known).log()).sum(dim=1)
    assert metric(stereo, stereo.flip(0)).tolist() == pytest.approx(expected.tolist())
