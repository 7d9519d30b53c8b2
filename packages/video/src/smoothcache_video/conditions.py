"""What a pipeline is asked for: prompts, from what a user gave, and what they ask of digits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.labels import condition_argument, prompts_for

from smoothcache_video.clips import DIGITS, DIRECTIONS, prompt_of

_KNOWN = {
    prompt_of(digit, direction): (digit, direction)
    for digit in range(len(DIGITS))
    for direction in range(len(DIRECTIONS))
}
"""What the shipped model can be asked for: digit and direction by prompt."""

_WRITTEN = {prompt: prompt.replace("a eight", "an eight") for prompt in _KNOWN}
"""Prompts as people write them. The model was trained on those of `prompt_of`, all with "a"."""
_TRAINED = {written: prompt for prompt, written in _WRITTEN.items()}


def choose_prompts(
    pipe: Any, *, labels: str | None, prompts: Sequence[str], digits: bool
) -> list[str]:
    """Return the prompts to sample, from what a user gave.

    Args:
        pipe: A diffusers pipeline that takes a `prompt`.
        labels: Class labels that were asked for, which no such pipeline takes.
        prompts: What was asked for; for the shipped model nothing is all of its prompts, so mixed
            that a few in a row show different digits and directions.
        digits: Whether it is the shipped model, which knows moving digits only.

    Raises:
        PipelineError: The pipeline takes no prompts, there are none or labels, or the shipped model
            does not know one.
    """
    name = type(pipe).__name__
    if condition_argument(pipe) != "prompt":
        raise PipelineError(f"{name} takes class labels, and videos are made from prompts here")
    if not digits or labels is not None:
        return prompts_for(name, labels=labels, prompts=prompts)
    asked = [_TRAINED.get(prompt, prompt) for prompt in prompts]
    for prompt in asked:
        digit_and_direction(prompt)
    return asked or random.Random(0).sample(list(_KNOWN), len(_KNOWN))


def written(prompt: str) -> str:
    """Return a prompt as people write it: `"an eight moving up"` for what the model calls a eight.

    Args:
        prompt: Any prompt; only some of the shipped model's are written otherwise.
    """
    return _WRITTEN.get(prompt, prompt)


def digit_and_direction(prompt: str) -> tuple[int, int]:
    """Return what a prompt asks of the shipped model: the digit, and the number of the direction.

    Raises:
        PipelineError: It is none that the model knows.
    """
    if prompt not in _KNOWN:
        first, *_, last = _KNOWN
        raise PipelineError(
            f"the model of moving digits does not know {prompt!r}; ask for {first!r} to {last!r}, "
            f"moving {', '.join(DIRECTIONS)}"
        )
    return _KNOWN[prompt]
