"""Prompts, and what they ask of the shipped model."""

from typing import Any

import pytest
from smoothcache_core.errors import PipelineError
from smoothcache_video.clips import DIRECTIONS, prompt_of
from smoothcache_video.conditions import choose_prompts, digit_and_direction, written


class OfPrompts:
    def __call__(self, prompt: str) -> None: ...


class OfClasses:
    def __call__(self, class_labels: object) -> None: ...


def chosen(pipe: Any = None, *prompts: str, digits: bool = False) -> list[str]:
    return choose_prompts(pipe or OfPrompts(), labels=None, prompts=prompts, digits=digits)


def test_a_prompt_is_taken_as_it_is():
    assert chosen(None, "a red fox", "snow") == ["a red fox", "snow"]


def test_no_prompt_is_every_digit_in_every_direction():
    prompts = chosen(digits=True)
    assert sorted(prompts) == sorted(prompt_of(d, w) for d in range(10) for w in range(4))
    assert prompts == chosen(digits=True)


def test_a_prompt_asks_for_a_digit_and_a_direction():
    assert digit_and_direction("a seven moving left") == (7, DIRECTIONS.index("left"))
    assert chosen(None, "a two moving up", digits=True) == ["a two moving up"]


def test_an_eight_is_written_as_people_do_and_asked_for_as_the_model_knows_it():
    trained = prompt_of(8, DIRECTIONS.index("up"))
    assert written(trained) == "an eight moving up"
    assert chosen(None, "an eight moving up", trained, digits=True) == [trained, trained]
    for prompt in ("a two moving up", "a eight", "a fox"):
        assert written(prompt) == prompt
    assert chosen(None, "an eight moving up") == ["an eight moving up"]  # another model's own


@pytest.mark.parametrize(
    ("pipe", "prompts", "digits", "message"),
    [
        (None, (), False, "OfPrompts takes prompts: give at least one"),
        (None, ("a fox",), True, "does not know 'a fox'; ask for 'a zero moving left' to"),
        (OfClasses(), ("a fox",), False, "OfClasses takes class labels, and videos are made from"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    pipe: Any, prompts: tuple[str, ...], digits: bool, message: str
):
    with pytest.raises(PipelineError, match=message):
        chosen(pipe, *prompts, digits=digits)
