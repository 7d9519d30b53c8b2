"""What pipelines announce by `cache_context` beside the name of a pass."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, ROW, STEPS, Toy, assert_followed, noise, places, schedule_of
from smoothcache_core import SmoothCacheWarning, cached
from smoothcache_core.adapters import whole_evaluations

PAIR = ("cond", "uncond")


class Informed(Toy):
    """A denoiser whose `cache_context` takes what the pipeline knows, as diffusers' does."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    @contextmanager
    def cache_context(self, name: str, **more: Any) -> Generator[None]:
        self.heard.append({"name": name, **more})
        yield


def run(toy: Informed, steps: int = len(STEPS), *, first: int = 0, told: int | None = None) -> None:
    """Sample with nothing to see of the time but what is announced."""
    latent = noise()
    for step in range(first, steps):
        for number, name in enumerate(PAIR):
            more = {"step_index": step, "sigma": 1.0, "num_inference_steps": told or steps}
            with toy.cache_context(name, **more):
                latent = toy(latent + number, None) / 4


def test_they_are_passed_on():
    toy = Informed()
    with cached(toy, whole_evaluations(toy), schedule_of(denoiser=ROW)):
        run(toy)
    assert toy.heard[3] == {
        "name": "uncond", "step_index": 1, "sigma": 1.0, "num_inference_steps": len(STEPS),
    }  # fmt: skip


def test_a_run_begins_anew_where_the_announced_step_goes_back():
    toy = Informed()
    told = pytest.warns(SmoothCacheWarning, match="ended after 2")
    with told, cached(toy, ADAPTER, schedule_of()) as stats:
        run(toy, 2, told=len(STEPS))
        run(toy)
        run(toy)
    assert stats.runs == 3
    ended = places("first", evaluations=2, branches=PAIR)
    assert_followed(toy, schedule_of(), [*ended, *places("second", "third", branches=PAIR)])


def test_one_pass_that_is_named_twice_is_two_evaluations_by_their_steps():
    toy = Informed()
    with cached(toy, ADAPTER, schedule_of()) as stats:
        for step in range(len(STEPS)):
            with toy.cache_context("cond", step_index=step):
                toy(noise(), None)
    assert (stats.runs, stats.evaluations) == (1, len(STEPS))


@pytest.mark.filterwarnings("ignore:a run ended after:smoothcache_core.SmoothCacheWarning")
@pytest.mark.parametrize(("told", "first"), [(9, 0), (len(STEPS), 2)])
def test_another_number_of_steps_is_told_before_anything_is_skipped(told: int, first: int):
    toy = Informed()
    latent = noise()
    warned = pytest.warns(SmoothCacheWarning, match=f"announces {told - first} steps")
    with (
        warned,
        cached(toy, ADAPTER, schedule_of()),
        toy.cache_context("cond", step_index=first, num_inference_steps=told),
    ):
        toy(latent, None)


@pytest.mark.parametrize("steps", [len(STEPS), len(STEPS) // 2])
def test_a_step_may_be_several_evaluations(steps: int):
    toy = Informed()
    with cached(toy, ADAPTER, schedule_of()) as stats:
        for evaluation in range(len(STEPS)):
            step = evaluation * steps // len(STEPS)
            with toy.cache_context("cond", step_index=step, num_inference_steps=steps):
                toy(noise(), STEPS[evaluation])
    assert stats.runs == 1


def test_what_would_be_waited_for_is_not_looked_at():
    toy = Informed()
    with cached(toy, ADAPTER, schedule_of()) as stats:
        for step in range(len(STEPS)):
            with toy.cache_context("cond", step_index=torch.tensor(step), num_inference_steps=None):
                toy(noise(), STEPS[step])
    assert stats.runs == 1
