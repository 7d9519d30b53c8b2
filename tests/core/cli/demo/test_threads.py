import time
from collections.abc import Generator

import pytest
import torch
from smoothcache_core.cli.demo.threads import use_fastest_threads


@pytest.fixture(autouse=True)
def eight_threads() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("milliseconds", "best", "tried"),
    [
        ({1: 40, 2: 20, 4: 10, 8: 5}, 8, {1, 2, 4, 8}),
        ({1: 20, 2: 10, 4: 30, 8: 5}, 2, {1, 2, 4}),
        ({1: 10, 2: 50, 4: 5, 8: 5}, 1, {1, 2}),
    ],
)
def test_more_threads_are_taken_while_they_are_faster(
    milliseconds: dict[int, int], best: int, tried: set[int]
):
    seen: list[int] = []

    def call() -> None:
        seen.append(torch.get_num_threads())
        time.sleep(milliseconds[seen[-1]] / 1000)

    assert use_fastest_threads(call) == torch.get_num_threads() == best
    assert set(seen) == tried


def test_a_hopeless_number_is_tried_once():
    seen: list[int] = []

    def call() -> None:
        seen.append(torch.get_num_threads())
        time.sleep(0.01 if seen[-1] == 1 else 0.1)

    use_fastest_threads(call)
    assert seen.count(2) == 1
