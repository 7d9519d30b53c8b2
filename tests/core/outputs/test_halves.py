"""Halves of a batch that holds conditional and unconditional rows."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from smoothcache_core.adapters.sites import Guidance
from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.halves import difference, halves, narrow, unguided, widen
from smoothcache_core.outputs.latents import Latents
from smoothcache_core.outputs.structures import flatten
from torch import Tensor

ORDERS: tuple[Guidance, ...] = ("cond-first", "uncond-first")


class Pair(NamedTuple):
    one: Tensor
    other: Any


@pytest.mark.parametrize(
    ("order", "expected"), [("cond-first", [0, 1, 2]), ("uncond-first", [3, 4, 5])]
)
def test_conditions_of_every_frame_are_narrowed_with_their_row(order: Any, expected: list[int]):
    arguments = {"encoder_hidden_states": torch.arange(6)[:, None], "ids": torch.arange(6)}
    narrowed = narrow(arguments, torch.zeros(2, 4, 3, 5), order)
    assert narrowed["encoder_hidden_states"].flatten().tolist() == expected
    assert narrowed["ids"].tolist() == [0, 1, 2, 3, 4, 5]


def test_positions_are_of_no_row_though_there_may_be_as_many():
    """Two frames are no two halves of a batch: Allegro gives tables and indices, one a frame."""
    table, indices, batched = torch.zeros(2, 4), torch.arange(2), torch.zeros(2, 7, 4)
    given = {"image_rotary_emb": ((table, table), indices), "mask": table}
    narrowed = narrow(given, torch.zeros(2, 4), "uncond-first")
    assert narrowed["image_rotary_emb"][0][0] is table
    assert narrowed["image_rotary_emb"][1] is indices
    assert len(narrowed["mask"]) == 1
    assert (
        len(narrow({"image_rotary_emb": batched}, batched, "uncond-first")["image_rotary_emb"]) == 1
    )


def test_the_rows_of_two_latents_are_narrowed_together():
    both = Latents((torch.arange(8.0).reshape(4, 2), torch.arange(4.0)[:, None]))
    video, sound = narrow(both.tensors, both, "cond-first")
    assert video.tolist() == [[0, 1], [2, 3]]
    assert sound.tolist() == [[0], [1]]


def test_arguments_are_narrowed_wherever_they_are():
    rows, single, scalar = torch.arange(4), torch.zeros(1, 4), torch.tensor(3)
    nested = {
        "extra": {"size": rows, "none": None},
        "ordered": OrderedDict(a=rows),
        "residuals": [rows[:, None], (rows, single)],
        "texts": [single, single, single, rows],
        "named": Pair(rows, "x"),
        "scale": 4.0,
    }
    first = narrow(nested, rows, "cond-first")
    second = narrow(nested, rows, "uncond-first")
    for narrowed, half in ((first, [0, 1]), (second, [2, 3])):
        assert narrowed["extra"]["size"].tolist() == half
        assert narrowed["extra"]["none"] is None
        assert type(narrowed["ordered"]) is OrderedDict
        assert narrowed["ordered"]["a"].tolist() == half
        assert narrowed["residuals"][0].tolist() == [[row] for row in half]
        assert narrowed["residuals"][1][0].tolist() == half
        assert narrowed["residuals"][1][1] is single
        assert len(narrowed["texts"]) == 2
        assert narrowed["named"].one.tolist() == half
        assert narrowed["scale"] == 4.0
    assert second["texts"][1] is rows
    assert nested["extra"]["size"] is rows
    assert nested["ordered"]["a"] is rows
    assert narrow((rows, scalar, rows, single), rows, "cond-first")[1] is scalar


def test_arguments_that_are_as_many_as_rows_are_no_batch():
    one, other = torch.ones(2, 3), torch.zeros(2)
    narrowed = narrow((one, other), one, "cond-first")
    assert [tuple(each.shape) for each in narrowed] == [(1, 3), (1,)]
    rotary = (torch.ones(5, 3), torch.ones(5, 3))
    for latent in (one, [one, other]):
        assert narrow((rotary,), latent, "cond-first")[0] == rotary


def test_residuals_that_are_as_many_as_rows_are_batches():
    """A list of two tensors of two rows, with a batch of two rows."""
    one, other = torch.ones(2, 3), torch.zeros(2, 3)
    assert len(narrow(([one, other],), one, "cond-first")[0]) == 2
    assert len(narrow(([one, other],), [one, other], "cond-first")[0]) == 1


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_odd_batch_is_refused(rows: int):
    with pytest.raises(ScheduleError, match=f"this batch has {rows} rows"):
        narrow((), torch.ones(rows, 4), "cond-first")


def whole_numbers(*shape: int, seed: int) -> Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("listed", [False, True], ids=["batch", "list"])
def test_halves_and_their_difference_give_the_whole_again(order: Guidance, listed: bool):
    batch = whole_numbers(4, 3, seed=0)
    output = ([*batch],) if listed else (batch, batch[:, 0] + 1)
    conditional, unconditional = halves(flatten(output), 4, order)
    made = difference(conditional, unconditional)
    narrowed = flatten((conditional,) if listed else tuple(conditional))
    again = unguided(conditional, [made, made], (0.5, 0.5))
    joined = widen(narrowed, again, flatten(output).spec, order)
    torch.testing.assert_close(joined, output, rtol=0, atol=0)
    part = slice(0, 2) if order == "cond-first" else slice(2, 4)
    first_tensors = torch.stack(conditional) if listed else conditional[0]
    assert torch.equal(first_tensors, batch[part])


def test_an_output_that_is_not_the_batch_is_refused():
    with pytest.raises(
        ScheduleError, match=r"shapes \[\(3, 2\)\] cannot be divided like its batch"
    ):
        halves(flatten(torch.ones(3, 2)), 4, "cond-first")


def first(output: Any) -> Tensor:
    return flatten(output).floating[0]
