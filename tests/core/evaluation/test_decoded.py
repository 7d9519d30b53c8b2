import math

import pytest
import torch
from smoothcache_core.evaluation import RecentlyDecoded, class_divergence, class_summaries
from smoothcache_core.metrics import frechet_distance
from torch import Tensor


def test_decoding_is_batched_and_remembered():
    sizes: list[int] = []

    def decode(latents: Tensor) -> Tensor:
        sizes.append(len(latents))
        return 2 * latents

    recent = RecentlyDecoded(decode, batch=2)
    first, second, third = torch.arange(15.0).reshape(3, 5, 1)
    assert torch.equal(recent(first), 2 * first)
    assert torch.equal(recent(second), 2 * second)
    assert torch.equal(recent(first), 2 * first)
    assert sizes == [2, 2, 1] * 2
    recent(third)
    assert torch.equal(recent(first), 2 * first)
    assert sizes == [2, 2, 1] * 4


def test_equal_latents_are_not_taken_for_the_same():
    """A sampler may write its next samples to the memory of the last ones."""
    recent = RecentlyDecoded(lambda latents: latents + 1, batch=2)
    latents = torch.zeros(2, 1)
    assert torch.equal(recent(latents.clone()), torch.ones(2, 1))
    latents += 1
    assert torch.equal(recent(latents.clone()), torch.full((2, 1), 2.0))


def named(decoded: Tensor) -> Tensor:
    """A classifier of three classes that answers with the last values of a sample."""
    return decoded[:, -3:]


def test_accuracy_and_distance_are_those_of_the_decoded_samples():
    latents = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 4.0]])
    real = torch.eye(3)
    summaries = class_summaries(
        [0, 1, 0, 1],
        logits=lambda x: -named(x),
        features=named,
        real=real,
    )
    assert summaries["accuracy"](-latents) == 0.0
    assert class_summaries([1, 0, 0, 2], logits=named, features=named, real=real)["accuracy"](
        latents
    ) == pytest.approx(0.75)
    assert summaries["frechet"](-latents) == frechet_distance(real, -latents)


def test_a_single_sample_has_no_distance():
    summaries = class_summaries([1], logits=named, features=named, real=torch.eye(3))
    assert set(summaries) == {"accuracy"}


def test_divergence_is_between_the_answers_for_the_decoded_samples():
    metric = class_divergence(logits=named)
    plain = torch.tensor([[9.0, 0.5, 0.25, 0.25], [9.0, 0.5, 0.25, 0.25]])
    other = torch.tensor([[1.0, 0.25, 0.25, 0.5], [1.0, 0.5, 0.25, 0.25]])
    expected = 0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)
    assert metric(plain.log(), other.log()).tolist() == pytest.approx([expected, 0.0], abs=1e-7)
