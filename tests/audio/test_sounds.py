import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from smoothcache_audio.metrics import hop_length, spectrogram_db
from smoothcache_audio.sounds import SoundRow, save_wav, spectrogram_sheet, waveform_overlay
from smoothcache_core import SmoothCacheWarning
from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports import save_figure
from torch import Tensor

RATE = 8_000


def tones(*frequencies: float, seconds: float = 0.25, amplitude: float = 0.5) -> Tensor:
    """Mono sounds of one frequency each, (n, 1, samples)."""
    times = torch.arange(int(RATE * seconds)) / RATE
    waves = [amplitude * torch.sin(2 * math.pi * frequency * times) for frequency in frequencies]
    return torch.stack(waves)[:, None]


def row(name: str, waveforms: Tensor) -> SoundRow:
    return SoundRow(name=name, remark=f"remark of {name}", waveforms=waveforms)


def sheet(*waveforms: Tensor) -> Figure:
    rows = [row(f"row {index}", each) for index, each in enumerate(waveforms)]
    captions = [f"sound {index}" for index in range(len(waveforms[0]))]
    return spectrogram_sheet(rows, sample_rate=RATE, captions=captions, title="title")


def panels(figure: Figure, rows: int) -> list[list[Axes]]:
    """The axes of a sheet, row by row, those of the colour bars left out."""
    axes = [each for each in figure.axes if each.get_label() != "<colorbar>"]
    columns = len(axes) // rows
    return [axes[line * columns : (line + 1) * columns] for line in range(rows)]


def values(axes: Axes) -> np.ndarray:
    image: Any = axes.images[0]
    return np.asarray(image.get_array())


# ---------------------------------------------------------------------------- spectrograms


def test_every_sound_is_shown_relative_to_the_loudest_of_its_plain_one():
    plain, other = tones(1000, 2000), tones(1000, 2000, amplitude=0.25)
    plain[1] /= 10
    shown = panels(sheet(plain, other), 2)
    for column in range(2):
        level = spectrogram_db(plain[column, 0], sample_rate=RATE).numpy()
        expected = np.maximum(level - level.max(), -80.0)
        assert values(shown[0][column]) == pytest.approx(expected, abs=1e-9)
        assert values(shown[1][column]).max() == pytest.approx([-6.02, 13.98][column], abs=0.01)


def test_the_right_half_shows_what_differs_from_plain():
    plain = tones(1000, 2000)
    other = plain * torch.tensor([2.0, 0.1])[:, None, None]
    shown = panels(sheet(plain, other), 2)
    assert [axes.get_visible() for axes in shown[0]] == [True, True, False, False]
    for column, change in ((0, 6.02), (1, -20.0)):
        plain_level = values(shown[0][column])
        difference = values(shown[1][2 + column])
        assert difference[plain_level > -50.0] == pytest.approx(change, abs=0.01)
        assert difference == pytest.approx(values(shown[1][column]) - plain_level)


def test_what_is_too_quiet_to_be_shown_is_no_difference():
    plain = tones(1000)
    hiss = 1e-6 * torch.randn(plain.shape)
    shown = panels(sheet(plain, plain + hiss), 2)
    quiet = values(shown[0][0]) <= -80.0
    assert quiet.any()
    assert np.abs(values(shown[1][1])[quiet]).max() < 0.5


def test_silence_is_black():
    shown = panels(sheet(torch.zeros(1, 1, 900), torch.zeros(1, 1, 900)), 2)
    assert (values(shown[0][0]) == -80.0).all()
    assert (values(shown[1][1]) == 0.0).all()


def test_a_tone_is_seen_at_its_frequency_and_time():
    waveforms = torch.zeros(1, 1, RATE)
    waveforms[..., RATE // 2 :] = tones(1500, seconds=0.5)
    axes = panels(sheet(waveforms), 1)[0][0]
    left, right, bottom, top = axes.images[0].get_extent()
    level = values(axes)
    highest = np.unravel_index(level[:, -20].argmax(), level.shape[:1])[0]
    kilohertz = bottom + (highest + 0.5) * (top - bottom) / level.shape[0]
    assert kilohertz == pytest.approx(1.5, abs=RATE / 1000 / 512)
    first = int((level.max(axis=0) > -20.0).argmax())
    seconds = left + (first + 0.5) * (right - left) / level.shape[1]
    assert seconds == pytest.approx(0.5, abs=2 * hop_length(RATE) / RATE)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 1.0), (0.0, 4.0))


def test_channels_are_averaged_in_power():
    mono = tones(1000)
    stereo = torch.cat([mono, torch.zeros_like(mono)], dim=1)
    rows = [row("plain", mono.expand(1, 2, -1)), row("left only", stereo)]
    figure = spectrogram_sheet(rows, sample_rate=RATE, captions=["a"], title="title")
    assert values(panels(figure, 2)[1][0]).max() == pytest.approx(-3.01, abs=0.01)


def test_rows_sounds_units_and_colours_are_named(tmp_path: Path):
    figure = sheet(tones(500, 900), tones(500, 900))
    shown = panels(figure, 2)
    named = [{text.get_text() for text in line[0].texts} for line in shown]
    assert named == [{"row 0", "remark of row 0"}, {"row 1", "remark of row 1"}]
    assert [axes.get_title() for axes in shown[0][:2]] == ["sound 0", "sound 1"]
    assert [axes.get_title() for axes in shown[1]] == ["", "", "sound 0", "sound 1"]
    assert {axes.get_xlabel() for axes in shown[1]} == {"s"}
    assert {line[0].get_ylabel() for line in shown} == {"kHz"}
    bars = [axes.get_xlabel() for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert bars == ["level in dB, loudest of plain is 0", "cached - plain in dB"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_figure(figure, tmp_path / "sheet.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("waveforms", "captions", "message"),
    [
        ([], [], r"rows must be sounds \(n, channels, samples\) of one shape"),
        ([tones(500), tones(500, 600)], ["a"], "of one shape and not empty, got"),
        ([torch.zeros(1, 500)], ["a"], "of one shape and not empty, got"),
        ([torch.zeros(1, 1, 0)], ["a"], "of one shape and not empty, got"),
        ([tones(500)], ["a", "b"], "1 sounds need as many captions, got 2"),
        ([tones(500), tones(500) * math.nan], ["a"], r"not all of \['row 1'\] are"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    waveforms: list[Tensor], captions: list[str], message: str
):
    rows = [row(f"row {index}", each) for index, each in enumerate(waveforms)]
    with pytest.raises(EvaluationError, match=message):
        spectrogram_sheet(rows, sample_rate=RATE, captions=captions, title="title")


# ---------------------------------------------------------------------------- waveforms


def overlay(*waveforms: Tensor, index: int = 0) -> Figure:
    rows = [row(f"row {number}", each) for number, each in enumerate(waveforms)]
    return waveform_overlay(rows, index=index, sample_rate=RATE, title="title")


def drawn(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.lines]


def test_overlay_shows_both_sounds_and_below_their_difference():
    plain, first, second = tones(500, 900), tones(500, 950), tones(500, 900, amplitude=0.4)
    axes = overlay(plain, first, second, index=1).axes
    assert len(axes) == 4
    for line, other in ((0, first), (2, second)):
        (times, below), (_, above) = drawn(axes[line])
        assert times == pytest.approx(np.arange(plain.shape[-1]) / RATE)
        assert below == pytest.approx(plain[1, 0].numpy())
        assert above == pytest.approx(other[1, 0].numpy())
        change = drawn(axes[line + 1])[0][1]
        assert change == pytest.approx((other - plain)[1, 0].numpy(), abs=1e-7)
    assert axes[0].get_ylim() == axes[2].get_ylim()
    assert axes[1].get_ylim() == axes[3].get_ylim()
    largest = float((first - plain)[1].abs().max())
    assert axes[1].get_ylim()[1] == pytest.approx(1.05 * largest)


def test_overlay_averages_channels_and_names_what_it_shows(tmp_path: Path):
    mono = tones(500)
    stereo = torch.cat([mono, 3 * mono], dim=1)
    figure = overlay(stereo, stereo)
    axes = figure.axes
    assert drawn(axes[0])[0][1] == pytest.approx(2 * mono[0, 0].numpy())
    legend = axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["row 0", "row 1"]
    assert axes[0].get_title(loc="left") == "row 1: remark of row 1"
    assert axes[1].get_xlabel() == "time in s"
    assert axes[1].get_ylim() == (-1.0, 1.0)
    assert save_figure(figure, tmp_path / "overlay.png").stat().st_size > 5_000


def test_overlay_of_a_long_sound_keeps_its_highest_and_lowest_values():
    plain = 0.01 * torch.randn(1, 1, 100_000)
    plain[0, 0, 77_777], plain[0, 0, 22_222] = 0.9, -0.8
    times, shown = drawn(overlay(plain, plain).axes[0])[0]
    assert len(shown) < 5_000
    assert (shown.max(), shown.min()) == (pytest.approx(0.9), pytest.approx(-0.8))
    assert times[shown.argmax()] == pytest.approx(77_777 / RATE, abs=0.01)
    assert times[shown.argmin()] == pytest.approx(22_222 / RATE, abs=0.01)


@pytest.mark.parametrize(("rows", "index"), [(1, 0), (2, 1), (2, -1)])
def test_overlay_needs_a_policy_and_a_sound(rows: int, index: int):
    with pytest.raises(EvaluationError, match=f"got {rows} rows and index {index}"):
        overlay(*[tones(500)] * rows, index=index)


# ---------------------------------------------------------------------------- WAV files


def test_wav_files_hold_the_sound_in_sixteen_bits(tmp_path: Path):
    sound = torch.rand(2, 1000) * 2 - 1
    sound[0, :3] = torch.tensor([-1.0, 0.0, 1.0])
    path = save_wav(sound, tmp_path / "new" / "sound.wav", sample_rate=44_100)
    read, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == 44_100
    assert soundfile.info(path).subtype == "PCM_16"
    expected = np.round(sound.double().numpy() * 32767).astype(np.int16)
    assert np.array_equal(read.T, expected)
    assert list(path.parent.iterdir()) == [path]


def test_what_is_beyond_full_scale_is_clipped_and_told(tmp_path: Path):
    sound = torch.tensor([[0.5, 1.5, -2.0, 1.0]])
    with pytest.warns(SmoothCacheWarning, match=r"2 of 4 values are beyond full scale \(up to 2\)"):
        path = save_wav(sound, tmp_path / "sound.wav", sample_rate=8000)
    read, _ = soundfile.read(path, dtype="int16")
    assert read.tolist() == [16384, 32767, -32767, 32767]


@pytest.mark.parametrize(
    ("sound", "rate", "message"),
    [
        (torch.zeros(5), 8000, r"needs a waveform \(channels, samples\)"),
        (torch.zeros(1, 0), 8000, "that is not empty"),
        (torch.zeros(1, 5), 0, "a sample rate above 0"),
        (torch.tensor([[0.0, math.nan]]), 8000, "not finite has no WAV file"),
    ],
)
def test_what_is_no_sound_is_refused_and_leaves_no_file(
    tmp_path: Path, sound: Tensor, rate: int, message: str
):
    with pytest.raises(EvaluationError, match=message):
        save_wav(sound, tmp_path / "sound.wav", sample_rate=rate)
    assert list(tmp_path.iterdir()) == []
