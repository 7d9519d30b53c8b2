"""The metrics that papers on generated sound report: CLAP score, KL-PaSST and FD-OpenL3.

As in `stable-audio-metrics` (FD_openl3, KL_passt and CLAP_score of Stable Audio Open), with the
networks of these packages:

    CLAP      transformers' ClapModel, weights `laion/clap-htsat-fused`, which are the
              `630k-audioset-fusion-best` of LAION-CLAP, whose own package pins NumPy 1
    PaSST     hear21passt, by its authors
    OpenL3    torchopenl3, a port of the TensorFlow package `openl3` to PyTorch

The last two come with `smoothcache-audio[published-metrics]`. All three download their weights when
they are loaded first. Sounds are resampled to the network's rate and made as loud as a peak of -1
dB; a silent sound stays silent. Values depend on the resampler in their last digits, so compare
them with published ones to that accuracy only.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchaudio
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import frechet_distance, kl_divergence
from torch import Tensor, nn

EXTRA = "smoothcache-audio[published-metrics]"
CLAP = "laion/clap-htsat-fused"

Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]

_PEAK = 10 ** (-1 / 20)
"""Largest value that a sound is scaled to: -1 dB of full scale, so that levels do not count."""

_CLAP_RATE, _PASST_RATE, _OPENL3_RATE = 48_000, 32_000, 48_000
"""Samples per second that each network was trained with."""

_PASST_SECONDS, _PASST_HOP_SECONDS = 10, 5
"""Length of what PaSST hears at once, and the distance of two such parts of a longer sound."""

_OPENL3_HOP_SECONDS = 0.5
"""Distance of OpenL3's windows of one second, of which a half is shared by two."""


# ---------------------------------------------------------------------------- CLAP score


@dataclass(frozen=True, kw_only=True)
class Clap:
    """Compares sounds with texts; `load_clap` loads it.

    Attributes:
        model: A `transformers.ClapModel`, which embeds sounds and texts.
        tokenizer: What makes numbers of texts for it.
        extractor: What makes spectrograms of sounds for it.
    """

    model: Any
    tokenizer: Any
    extractor: Any

    @torch.no_grad()
    def score(self, waveforms: Tensor, prompts: Sequence[str], *, sample_rate: int) -> Tensor:
        """Return how well each sound fits its text.

        Of sounds longer than the network hears at once (10 s), random parts are taken, always the
        same ones.

        Args:
            waveforms: (n, channels, samples), full scale at -1 and 1. Channels are averaged.
            prompts: A text for each sound, n of them.
            sample_rate: Samples per second.

        Returns:
            (n,) float64, the cosine of the angle between the embeddings, in [-1, 1].

        Raises:
            EvaluationError: The shapes do not fit, or a value is not finite.
        """
        sounds = _prepared(waveforms, sample_rate, _CLAP_RATE).mean(dim=1)
        _check_prompts(len(sounds), prompts)
        texts = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        device = self.model.device
        said = self.model.get_text_features(**texts.to(device)).pooler_output
        heard = torch.cat([self._heard(sound).to(device) for sound in _loud(sounds)])
        return nn.functional.cosine_similarity(heard.double(), said.double()).cpu()

    def _heard(self, sound: Tensor) -> Tensor:
        """Return the embedding of one sound, (1, F)."""
        rounded = (sound * 32767).to(torch.int16).numpy().astype(np.float32) / 32767
        with _repeatable_numpy():
            inputs = self.extractor(rounded, sampling_rate=_CLAP_RATE, return_tensors="pt")
        return self.model.get_audio_features(**inputs.to(self.model.device)).pooler_output


def load_clap(model: str | Path = CLAP, *, device: str = "cpu") -> Clap:
    """Load a CLAP network.

    Args:
        model: A folder, or a name on the Hugging Face Hub.
        device: Where to compute.

    Raises:
        EvaluationError: Its weights cannot be had.
    """
    from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel

    with _weights("the CLAP score", f"CLAP model {str(model)!r}"):
        network: Any = ClapModel.from_pretrained(model)
        return Clap(
            model=network.eval().requires_grad_(False).to(device),
            tokenizer=AutoTokenizer.from_pretrained(model),
            extractor=AutoFeatureExtractor.from_pretrained(model),
        )


def clap_summary(prompts: Sequence[str], *, clap: Clap, sample_rate: int) -> Mapping[str, Summary]:
    """Return the summary `"clap"`: the mean score of the sounds and their prompts.

    Args:
        prompts: The text of each sound, in the order of the samples.
        clap: Compares sounds with texts.
        sample_rate: Samples per second of the waveforms.
    """

    def mean_score(waveforms: Tensor) -> float:
        return float(clap.score(waveforms, prompts, sample_rate=sample_rate).mean())

    return {"clap": mean_score}


# ---------------------------------------------------------------------------- KL-PaSST


@dataclass(frozen=True, kw_only=True)
class Passt:
    """Names what is heard by the 527 classes of AudioSet; `load_passt` loads it.

    Attributes:
        model: A wrapper of `hear21passt` in mode "logits".
        device: Where it computes.
    """

    model: Any
    device: str = "cpu"

    @torch.no_grad()
    def logits(self, waveforms: Tensor, *, sample_rate: int) -> Tensor:
        """Return the scores of the classes.

        The mean over windows of 10 s, one every 5 s. The last window is filled up with silence.

        Args:
            waveforms: (n, channels, samples), full scale at -1 and 1. Channels are averaged.
            sample_rate: Samples per second.

        Returns:
            (n, classes).

        Raises:
            EvaluationError: The shape does not fit, or a value is not finite.
        """
        sounds = _loud(_prepared(waveforms, sample_rate, _PASST_RATE).mean(dim=1))
        with _silenced():
            scores = [self.model(window.to(self.device)).cpu() for window in _windows(sounds)]
        return torch.stack(scores).mean(dim=0)


def load_passt(*, device: str = "cpu") -> Passt:
    """Load PaSST-S, trained on AudioSet.

    Args:
        device: Where to compute.

    Raises:
        EvaluationError: The package or its weights cannot be had.
    """
    _require("hear21passt", "KL-PaSST")
    with _weights("KL-PaSST", f"PaSST (kept in {_hub_folder()})"), _silenced():
        model = import_module("hear21passt.base").get_basic_model(mode="logits")
    return Passt(model=model.eval().requires_grad_(False).to(device), device=device)


def passt_metric(*, passt: Passt, sample_rate: int) -> dict[str, Metric]:
    """Return the metric `"kl_passt"`: what is heard otherwise than in the plain run's sound.

    Against recordings, as published, it is `kl_divergence(passt.logits(recordings), ...)`.

    Args:
        passt: Names what is heard.
        sample_rate: Samples per second of the waveforms.
    """

    def divergence(plain: Tensor, other: Tensor) -> Tensor:
        logits = [passt.logits(each, sample_rate=sample_rate) for each in (plain, other)]
        return kl_divergence(*logits)

    return {"kl_passt": divergence}


def _windows(sounds: Tensor) -> list[Tensor]:
    """Cut sounds (n, samples) into windows (n, 10 s)."""
    length, hop = _PASST_SECONDS * _PASST_RATE, _PASST_HOP_SECONDS * _PASST_RATE
    count = 1 + max(0, math.ceil((sounds.shape[1] - length) / hop))
    windows = [sounds[:, start : start + length] for start in range(0, count * hop, hop)]
    return [nn.functional.pad(window, (0, length - window.shape[1])) for window in windows]


# ---------------------------------------------------------------------------- FD-OpenL3


@dataclass(frozen=True, kw_only=True)
class OpenL3:
    """Describes sounds; `load_openl3` loads it.

    Attributes:
        model: A `torchopenl3.models.PytorchOpenl3` of 512 features.
        device: Where it computes.
    """

    model: Any
    device: str = "cpu"

    @torch.no_grad()
    def features(self, waveforms: Tensor, *, sample_rate: int) -> Tensor:
        """Return features of every half second of every sound.

        Args:
            waveforms: (n, channels, samples), full scale at -1 and 1, one or two channels. The
                features of two channels stand beside each other.
            sample_rate: Samples per second.

        Returns:
            (n x half seconds, 512 x channels).

        Raises:
            EvaluationError: The shape does not fit, or a value is not finite.
        """
        sounds = _loud(_prepared(waveforms, sample_rate, _OPENL3_RATE))
        if sounds.shape[1] > 2:
            raise EvaluationError(f"OpenL3 hears one or two channels, got {sounds.shape[1]}")
        embed = import_module("torchopenl3.core").get_audio_embedding
        with _silenced():
            channels = [
                embed(
                    sounds[:, channel].contiguous().to(self.device),
                    _OPENL3_RATE,
                    model=self.model,
                    hop_size=_OPENL3_HOP_SECONDS,
                )[0]
                for channel in range(sounds.shape[1])
            ]
        return torch.cat(channels, dim=2).flatten(0, 1).cpu()


def load_openl3(content: Literal["env", "music"] = "env", *, device: str = "cpu") -> OpenL3:
    """Load OpenL3 with 512 features of 256 mel bands.

    Args:
        content: What it was trained on: sounds of the environment, or music.
        device: Where to compute.

    Raises:
        EvaluationError: The package or its weights cannot be had.
    """
    _require("torchopenl3", "FD-OpenL3")
    with _weights("FD-OpenL3", f"OpenL3 (kept in {_hub_folder()})"), _silenced():
        core = import_module("torchopenl3.core")
        model = core.load_audio_embedding_model("mel256", content, 512)
    return OpenL3(model=model.requires_grad_(False).to(device), device=device)


def openl3_summary(real: Tensor, *, openl3: OpenL3, sample_rate: int) -> Mapping[str, Summary]:
    """Return the summary `"fd_openl3"`: the Frechet distance of features to those of recordings.

    Args:
        real: `openl3.features` of recordings with as many channels, at least 2 rows.
        openl3: The network that gives features of sounds, from `load_openl3`.
        sample_rate: Samples per second of the waveforms.
    """

    def distance(waveforms: Tensor) -> float:
        return frechet_distance(real, openl3.features(waveforms, sample_rate=sample_rate))

    return {"fd_openl3": distance}


# ---------------------------------------------------------------------------- shared


def _prepared(waveforms: Tensor, sample_rate: int, wanted: int) -> Tensor:
    """Return checked waveforms (n, channels, samples) at the wanted rate, float32 on the CPU."""
    if waveforms.ndim != 3 or not waveforms.numel() or not sample_rate > 0:
        raise EvaluationError(
            "waveforms must be (n, channels, samples) and not empty at a rate above 0, got "
            f"{tuple(waveforms.shape)} at {sample_rate}"
        )
    if not waveforms.isfinite().all():
        raise EvaluationError("waveforms must be finite")
    sounds = waveforms.detach().cpu().float()
    return torchaudio.functional.resample(sounds, sample_rate, wanted)


def _loud(sounds: Tensor) -> Tensor:
    """Scale sounds (n, ...) to a peak of -1 dB."""
    peaks = sounds.abs().flatten(start_dim=1).amax(dim=1)
    gains = torch.where(peaks > 0, _PEAK / peaks, 1.0)
    return sounds * gains.reshape(-1, *[1] * (sounds.ndim - 1))


def _check_prompts(count: int, prompts: Sequence[str]) -> None:
    if len(prompts) != count:
        raise EvaluationError(f"{count} sounds need as many prompts, got {len(prompts)}")


def _require(package: str, metric: str) -> None:
    if find_spec(package) is None:
        raise EvaluationError(
            f"{metric} needs the package {package!r}, which is not installed: pip install '{EXTRA}'"
        )


@contextmanager
def _weights(metric: str, what: str) -> Generator[None]:
    """Say in one line that weights could not be loaded."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise EvaluationError(
            f"{metric} needs the weights of {what}, which could not be downloaded or loaded: "
            f"{reason}"
        ) from error


def _hub_folder() -> str:
    return f"{torch.hub.get_dir()}/checkpoints"


@contextmanager
def _silenced() -> Generator[None]:
    """Keep what foreign networks print and warn of from the user."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _repeatable_numpy() -> Generator[None]:
    """Seed NumPy's global generator, which feature extractors draw from, and put it back."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
