import math
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.clap_folder import save_clap
from smoothcache_audio.published import (
    Clap,
    OpenL3,
    Passt,
    clap_summary,
    load_clap,
    load_openl3,
    load_passt,
    openl3_summary,
    passt_metric,
)
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import frechet_distance, kl_divergence
from torch import Tensor, nn

RATE = 16_000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without a network, and its empty folder for weights."""

    def unreachable(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    yield tmp_path
    torch.hub.set_dir(before)


# ---------------------------------------------------------------------------- CLAP score


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Clap:
    return load_clap(save_clap(tmp_path_factory.mktemp("clap")))


def test_clap_score_is_the_cosine_of_sound_and_text(clap: Clap):
    sounds, prompts = noise(2, 1, 48_000), ["a dog", "two cats"]
    scores = clap.score(sounds, prompts, sample_rate=48_000)
    peak = 10 ** (-1 / 20) / sounds.abs().amax(dim=2, keepdim=True)
    with torch.no_grad():
        for index, prompt in enumerate(prompts):
            text = clap.tokenizer(prompt, return_tensors="pt")
            sound = (sounds * peak)[index, 0].numpy()
            mel = clap.extractor(sound, sampling_rate=48_000, return_tensors="pt")
            said = clap.model.get_text_features(**text).pooler_output
            heard = clap.model.get_audio_features(**mel).pooler_output
            expected = nn.functional.cosine_similarity(said, heard).item()
            assert scores[index].item() == pytest.approx(expected, abs=1e-4)
    assert scores.abs().max() <= 1.0


@pytest.mark.parametrize("seconds", [0.01, 1, 12], ids=["short", "one window", "long"])
def test_clap_score_depends_on_neither_chance_nor_other_sounds(clap: Clap, seconds: float):
    sounds, prompts = noise(2, 2, int(seconds * RATE)), ["a dog", "two cats"]
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    together = clap.score(sounds, prompts, sample_rate=RATE)
    assert np.random.rand() == expected
    alone = [
        clap.score(sounds[i : i + 1], prompts[i : i + 1], sample_rate=RATE).item() for i in (0, 1)
    ]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)


def test_clap_score_ignores_loudness_and_knows_silence(clap: Clap):
    sounds = noise(1, 1, RATE)
    quiet, loud, silent = (
        clap.score(gain * sounds, ["a dog"], sample_rate=RATE).item() for gain in (0.01, 3.0, 0.0)
    )
    assert quiet == pytest.approx(loud, abs=1e-3)
    assert math.isfinite(silent)
    assert silent != pytest.approx(loud, abs=1e-3)


def test_clap_summary_is_the_mean_score_of_the_decoded_sounds(clap: Clap):
    latents, prompts = noise(3, 1, 8_000), ["one", "two", "three"]
    summary = clap_summary(prompts, clap=clap, sample_rate=RATE)["clap"]
    expected = clap.score(-latents, prompts, sample_rate=RATE).mean().item()
    assert summary(-latents) == pytest.approx(expected)


def test_clap_score_needs_a_prompt_per_sound(clap: Clap):
    with pytest.raises(EvaluationError, match="2 sounds need as many prompts, got 1"):
        clap.score(noise(2, 1, 800), ["a dog"], sample_rate=RATE)


@pytest.mark.parametrize(
    ("waveforms", "rate", "message"),
    [
        (torch.zeros(2, 5), RATE, r"must be \(n, channels, samples\)"),
        (torch.zeros(1, 1, 0), RATE, "not empty"),
        (torch.zeros(1, 1, 5), 0, "at a rate above 0"),
        (torch.full((1, 1, 5), math.nan), RATE, "must be finite"),
    ],
)
def test_what_is_no_sound_is_refused(clap: Clap, waveforms: Tensor, rate: int, message: str):
    with pytest.raises(EvaluationError, match=message):
        clap.score(waveforms, ["a dog"], sample_rate=rate)


def test_clap_without_weights_is_one_line(tmp_path: Path):
    with pytest.raises(
        EvaluationError, match="CLAP score needs the weights of CLAP model"
    ) as error:
        load_clap(tmp_path)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("package", "load", "metric"),
    [("hear21passt", load_passt, "KL-PaSST"), ("torchopenl3", load_openl3, "FD-OpenL3")],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, load: Any, metric: str
):
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"{metric} needs the package '{package}'.*smoothcache-audio\[published-metrics\]"
    with pytest.raises(EvaluationError, match=expected):
        load()


# ---------------------------------------------------------------------------- KL-PaSST


class Bands(nn.Module):
    """Stands where PaSST stands: scores of a window are its first and last samples."""

    def forward(self, windows: Tensor) -> Tensor:
        assert windows.shape[1] == 320_000
        return torch.stack([windows[:, 0], windows[:, 160_000], windows[:, -1]], dim=1)


def test_passt_hears_windows_of_ten_seconds_every_five():
    sound = torch.zeros(1, 1, 32_000 * 22)
    sound[0, 0, ::160_000] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    sound[0, 0, 1] = 10 ** (-1 / 20)
    heard = Passt(model=Bands()).logits(sound, sample_rate=32_000)
    starts = [[0.1, 0.2, 0.0], [0.2, 0.3, 0.0], [0.3, 0.4, 0.0], [0.4, 0.5, 0.0]]
    assert heard[0].tolist() == pytest.approx(np.mean(starts, axis=0).tolist(), abs=1e-6)


def test_passt_fills_a_short_sound_with_silence_and_makes_it_loud():
    stereo = torch.tensor([[[0.1, 0.0, 0.0], [0.3, 0.0, 0.0]]])
    heard = Passt(model=Bands()).logits(stereo, sample_rate=32_000)
    assert heard[0].tolist() == pytest.approx([10 ** (-1 / 20), 0.0, 0.0])


def tiny_passt() -> Passt:
    pytest.importorskip("hear21passt", reason="smoothcache-audio[published-metrics]")
    from importlib import import_module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mel = import_module("hear21passt.models.preprocess").AugmentMelSTFT(fmax=15_000)
        net = import_module("hear21passt.models.passt").PaSST(
            img_size=(128, 998), stride=10, in_chans=1, num_classes=527, embed_dim=24, depth=1,
            num_heads=2, distilled=True,
        )  # fmt: skip
        wrapper = import_module("hear21passt.wrapper").PasstBasicWrapper
    return Passt(model=wrapper(mel=mel, net=net, mode="logits").eval())


def test_passt_metric_is_the_divergence_of_what_is_heard(capsys: pytest.CaptureFixture[str]):
    passt = tiny_passt()
    metric = passt_metric(passt=passt, sample_rate=RATE)["kl_passt"]
    plain, other = noise(2, 1, RATE), noise(2, 1, RATE, seed=1)
    other[1] = plain[1]
    values = metric(2 * plain, 2 * other)
    logits = [passt.logits(2 * each, sample_rate=RATE) for each in (plain, other)]
    assert logits[0].shape == (2, 527)
    assert values.tolist() == kl_divergence(*logits).tolist()
    assert values[0] > 0.0
    assert values[1] == 0.0
    assert capsys.readouterr().out == ""


def test_passt_without_weights_is_one_line(offline: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("hear21passt", reason="smoothcache-audio[published-metrics]")
    with pytest.raises(EvaluationError, match="KL-PaSST needs the weights of PaSST") as error:
        load_passt()
    assert str(offline / "checkpoints") in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------------------- FD-OpenL3


@pytest.fixture
def openl3(offline: Path) -> OpenL3:
    """A network with random weights, loaded from the folder that weights are kept in."""
    pytest.importorskip("torchopenl3", reason="smoothcache-audio[published-metrics]")
    from importlib import import_module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = import_module("torchopenl3.models").PytorchOpenl3("env", "mel256", 512)
    (offline / "checkpoints").mkdir()
    torch.save(network.state_dict(), offline / "checkpoints" / "torchopenl3_mel256_env_512.pth.tar")
    return load_openl3()


@pytest.mark.slow
def test_openl3_describes_every_half_second_of_every_channel(openl3: OpenL3):
    sounds = noise(2, 2, 24_000)
    features = openl3.features(sounds, sample_rate=RATE)
    assert features.shape == (2 * 3, 2 * 512)
    left = openl3.features(sounds[:, :1], sample_rate=RATE)
    torch.testing.assert_close(features[:, :512], left, rtol=1e-3, atol=1e-4)
    assert (features[:, 512:] - left).abs().max() > 1e-3
    with pytest.raises(EvaluationError, match="one or two channels, got 3"):
        openl3.features(noise(1, 3, 800), sample_rate=RATE)


@pytest.mark.slow
def test_openl3_summary_is_the_distance_of_the_decoded_sounds(openl3: OpenL3):
    real = openl3.features(noise(2, 1, 12_000, seed=1), sample_rate=RATE)
    latents = noise(2, 1, 12_000)
    summary = openl3_summary(real, openl3=openl3, sample_rate=RATE)["fd_openl3"]
    expected = frechet_distance(real, openl3.features(-latents, sample_rate=RATE))
    assert summary(-latents) == pytest.approx(expected)
    assert summary(noise(2, 1, 12_000, seed=1)) == pytest.approx(0.0, abs=1e-6)


def test_openl3_without_weights_is_one_line(offline: Path):
    pytest.importorskip("torchopenl3", reason="smoothcache-audio[published-metrics]")
    with pytest.raises(EvaluationError, match="FD-OpenL3 needs the weights of OpenL3") as error:
        load_openl3()
    assert str(offline / "checkpoints") in str(error.value)
    assert "\n" not in str(error.value)
