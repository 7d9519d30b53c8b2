"""Outputs as structures: taken apart, combined and put together."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.outputs.structures import Structure, answer, flatten, latent_channels
from torch import Tensor

LINE = (2.0, -1.0)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STRUCTURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda one, _: one,
    "tuple": lambda one, other: (one, other),
    "list": lambda one, other: [one, other],
    "dictionary": lambda one, other: {"sample": one, "extra": [other]},
    "output class": lambda one, _: Transformer2DModelOutput(sample=one),
    "output class in a tuple": lambda one, other: (Transformer2DModelOutput(sample=one), other),
}
every_structure = pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)


@every_structure
def test_outputs_are_combined_in_their_structure(build: Callable[[Tensor, Tensor], Any]):
    a, b, c, d = (numbers(2, 3, seed=seed) for seed in range(4))
    expected = flatten(build(3 * a - 0.5 * c, 3 * b - 0.5 * d))
    blended = answer([build(a, b), build(c, d)], (3.0, -0.5))
    assert type(blended) is type(build(a, b))
    assert flatten(blended).spec == expected.spec
    torch.testing.assert_close(flatten(blended).leaves, expected.leaves, rtol=0, atol=0)


@every_structure
def test_combinations_are_fresh(build: Callable[[Tensor, Tensor], Any]):
    ones, others = numbers(2, 3).requires_grad_(), torch.arange(3)
    output = build(ones, others)
    for weights in ((1.0,), torch.ones(1)):
        for leaf in flatten(answer([output], weights)).leaves:
            assert leaf.data_ptr() not in (ones.data_ptr(), others.data_ptr())
    copied = flatten(output).copied()
    assert not any(leaf.requires_grad for leaf in copied.leaves)
    assert copied.bytes == flatten(output).bytes
    assert ones.data_ptr() not in [leaf.data_ptr() for leaf in copied.leaves]


def test_what_is_not_floating_is_taken_from_the_newest():
    one, other = (numbers(2), torch.tensor([1]), "a", None), (numbers(2), torch.tensor([2]), "b", 3)
    blended = answer([one, other], LINE)
    assert blended[1:] == (torch.tensor([1]), "a", None)


@every_structure
def test_an_output_is_put_together_as_it_was(build: Callable[[Tensor, Tensor], Any]):
    one, other = numbers(2, 3), torch.arange(3)
    output = build(one, other)
    same = Structure.of(output).output()
    assert type(same) is type(output)
    assert all(map(operator.is_, Structure.of(same).leaves, Structure.of(output).leaves))
    doubled = Structure.of(output).with_floating([2.0 * one])
    torch.testing.assert_close(doubled.output(), build(2.0 * one, other), rtol=0, atol=0)
    assert other.data_ptr() not in [leaf.data_ptr() for leaf in doubled.leaves]


@pytest.mark.parametrize(
    ("shape", "latent", "expected"),
    [
        ((2, 8, 5), (2, 4, 5), (2, 4, 5)),
        ((2, 8), (2, 4), (2, 4)),
        ((2, 4, 5), (2, 4, 5), (2, 4, 5)),
        ((2, 3, 5), (2, 4, 5), (2, 3, 5)),
        ((8, 5), (2, 4, 5), (8, 5)),
        ((8,), (4,), (8,)),
    ],
)
def test_the_channels_of_the_latent_are_the_first(
    shape: tuple[int, ...], latent: tuple[int, ...], expected: tuple[int, ...]
):
    tensor = numbers(*shape)
    found = latent_channels(tensor, numbers(*latent))
    assert found.shape == expected
    assert found.data_ptr() == tensor.data_ptr()


def test_an_output_without_numbers_is_refused():
    with pytest.raises(AttachError, match="gives a tuple in which there is no floating-point ten"):
        flatten((torch.tensor([1]), "a"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_with_the_latent_are_taken_in_float32(dtype: torch.dtype):
    first, second, latent = (numbers(4, 5, seed=seed).to(dtype) for seed in range(3))
    exact = 1.7 * first.float() + -0.6 * second.float() + 0.3 * latent.float()
    assert torch.equal(answer([first, second], (1.7, -0.6), [(latent, 0.3)]), exact.to(dtype))


def test_the_latent_is_added_to_the_first_channels():
    output, latent = numbers(2, 6, 3), numbers(2, 4, 3, seed=1)
    given = answer([(output, torch.ones(2))], (1.0,), [(latent, 0.5)])
    assert torch.equal(given[0][:, :4], output[:, :4] + 0.5 * latent)
    assert torch.equal(given[0][:, 4:], output[:, 4:])
    assert torch.equal(given[1], torch.ones(2))


def test_lists_of_latents_go_with_lists_of_outputs():
    outputs, latents = ([numbers(3, size) for size in (2, 4)] for _ in range(2))
    given = answer([(outputs,)], (1.0,), [(latents, -0.5)])
    expected = [output - 0.5 * latent for output, latent in zip(outputs, latents, strict=True)]
    torch.testing.assert_close(given, (expected,), rtol=0, atol=0)


@pytest.mark.parametrize(
    "latent",
    [numbers(2, 7), numbers(1, 6), numbers(2, 6, 1), [numbers(2, 6)] * 2, [], None],
    ids=["channels", "rows", "dimensions", "tensors", "none", "nothing"],
)
def test_a_latent_that_does_not_match_is_refused(latent: Any):
    with pytest.raises(ScheduleError, match=r"does not match the denoiser's output of .*\(2, 6\)"):
        answer([numbers(2, 6)], (1.0,), [(latent, 0.5)])


def first(output: Any) -> Tensor:
    return flatten(output).floating[0]
