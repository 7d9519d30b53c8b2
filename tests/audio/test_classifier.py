"""The classifier of the shipped spoken digits, on ten clips of voices that it never heard."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from smoothcache_audio import classifier as spoken
from smoothcache_audio.classifier import SpokenDigitClassifier
from smoothcache_core.metrics import frechet_distance
from torch import Tensor


@pytest.fixture(scope="module")
def classifier():
    return spoken.load()


@pytest.fixture(scope="module")
def clips():
    """One clip of every digit, zero to nine, (10, 12800)."""
    stored = load_file(Path(__file__).parent / "spoken-digits.safetensors")
    return stored["waveforms"].float() / 32768


def test_clips_of_unheard_voices_are_named(classifier: SpokenDigitClassifier, clips: Tensor):
    assert classifier(clips).argmax(dim=1).tolist() == list(range(10))


def test_names_survive_noise_softness_and_a_shift(classifier: SpokenDigitClassifier, clips: Tensor):
    softer = 0.5 * clips.roll(1000, dims=1) + 0.002 * torch.randn_like(clips)
    assert classifier(softer).argmax(dim=1).tolist() == list(range(10))


def test_silence_is_named_with_less_confidence_than_speech(
    classifier: SpokenDigitClassifier, clips: Tensor
):
    spoken = classifier(clips).softmax(dim=1).amax(dim=1)
    silent = classifier(torch.zeros(1, 12800)).softmax(dim=1).amax()
    assert silent < spoken.min()


def test_a_channel_dimension_changes_nothing(classifier: SpokenDigitClassifier, clips: Tensor):
    assert torch.equal(classifier.features(clips[:, None]), classifier.features(clips))


def test_logits_are_the_head_of_the_features(classifier: SpokenDigitClassifier, clips: Tensor):
    features = classifier.features(clips)
    assert features.shape == (10, 64)
    assert torch.equal(classifier.head(features), classifier.logits(clips))


def test_answers_do_not_depend_on_the_batch_or_the_mode(
    classifier: SpokenDigitClassifier, clips: Tensor
):
    alone = torch.cat([classifier.logits(clip[None]) for clip in clips])
    torch.testing.assert_close(classifier.logits(clips), alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(classifier.train().logits(clips), classifier.eval().logits(clips))


def test_loading_needs_no_gradients_and_gives_the_same_weights_each_time(
    classifier: SpokenDigitClassifier,
):
    again = spoken.load()
    assert not any(weight.requires_grad for weight in again.parameters())
    for name, value in again.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, classifier.state_dict()[name])


def test_reference_is_nearer_to_speech_than_to_noise(
    classifier: SpokenDigitClassifier, clips: Tensor
):
    reference = spoken.reference_features()
    assert reference.shape == (1000, 64)
    rounds = reference.unflatten(0, (100, 10))  # every digit once in each
    halves = frechet_distance(rounds[::2].flatten(0, 1), rounds[1::2].flatten(0, 1))
    speech = frechet_distance(reference, classifier.features(clips))
    noise = frechet_distance(reference, classifier.features(0.1 * torch.randn(100, 12800)))
    assert 10 * halves < speech < noise / 2
