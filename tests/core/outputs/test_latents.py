"""Several latents of one call, as one tensor and taken apart again."""

import pytest
import torch
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.latents import Latents, are_joined, divided, joined
from smoothcache_core.outputs.structures import Structure, answer, like_output, rows_of
from torch import Tensor

VIDEO, SOUND = torch.randn(2, 3, 4), torch.randn(2, 5)


def test_latents_are_joined_row_by_row_and_divided_again():
    both = Latents((VIDEO, SOUND))
    assert len(both) == 2
    assert rows_of(both).shape == (2, 17)
    assert torch.equal(rows_of(both)[1, 12:], SOUND[1])
    again = both.divided(rows_of(both))
    assert all(torch.equal(a, b) for a, b in zip(again.tensors, both.tensors, strict=True))


def test_latents_of_several_batches_are_refused():
    with pytest.raises(CalibrationError, match=r"as many rows, got shapes \[\(2, 5\), \(3, 5\)\]"):
        rows_of(Latents((SOUND, torch.zeros(3, 5))))


@pytest.mark.parametrize(
    ("tensors", "latent", "expected"),
    [
        ((VIDEO, SOUND), torch.zeros(2, 17), True),
        ((VIDEO, SOUND), torch.zeros(2, 12), False),  # the second is none of its latents
        ((VIDEO, SOUND), torch.zeros(2, 3, 4), False),
        ((SOUND,), torch.zeros(2, 5), False),  # one latent is as it is
        ((SOUND[0], SOUND[1]), torch.zeros(2, 10), False),  # one tensor for each row
    ],
)
def test_outputs_answer_joined_latents_only_if_they_are_as_large(
    tensors: tuple[Tensor, ...], latent: Tensor, expected: bool
):
    assert are_joined(tensors, latent) == expected


def test_what_the_solver_uses_of_two_outputs_is_both():
    outputs, latent = Structure.of((VIDEO, SOUND)), torch.zeros(2, 17)
    assert torch.equal(outputs.signal(latent), joined((VIDEO, SOUND)))
    change = torch.randn(2, 17)
    video, sound = outputs.plus(change, latent).output()
    own = divided(change, (VIDEO, SOUND))
    assert torch.equal(video, VIDEO + own[0])
    assert torch.equal(sound, SOUND + own[1])


def test_every_latent_takes_part_in_the_fill_of_its_own_output():
    latents = Latents((VIDEO, SOUND))
    own = like_output(latents, Structure.of((VIDEO, SOUND)), None)
    video, sound = answer([(VIDEO, SOUND)], (2.0,), [(own, -1.0)])
    torch.testing.assert_close((video, sound), (VIDEO, SOUND))
