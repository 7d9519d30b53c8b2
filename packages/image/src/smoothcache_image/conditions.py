"""What a pipeline is asked for: classes or prompts, from what a user gave, and their names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.labels import (
    SHORT,
    chosen_classes,
    condition_argument,
    prompts_for,
    refuse_prompts,
)

_IN_ORDER = 100  # classes: with more, neighbours are alike (ImageNet), so they are shuffled


def takes_labels(pipe: Any) -> bool:
    """Return whether a pipeline is class-conditional.

    Raises:
        PipelineError: It takes neither class labels nor prompts.
    """
    return condition_argument(pipe) == "class_labels"


def choose_conditions(pipe: Any, *, labels: str | None, prompts: Sequence[str]) -> list[Any]:
    """Return the conditions to sample, from what a user gave.

    Args:
        pipe: A diffusers pipeline that takes `class_labels` or `prompt`.
        labels: Class numbers, ranges `"0-9"` or names, separated by commas; None for all classes.
        prompts: Prompts, for text-conditional pipelines.

    Raises:
        PipelineError: The pipeline takes the other kind, or does not know a class.
    """
    name = type(pipe).__name__
    if not takes_labels(pipe):
        return prompts_for(name, labels=labels, prompts=prompts)
    refuse_prompts(name, prompts)
    if labels is None:
        return _all_classes(pipe)
    return chosen_classes(labels, names=_named_classes(pipe), count=_class_count(pipe))


def label_name(pipe: Any, condition: int | str) -> str:
    """Return the name of a class, or of a prompt, short enough for a caption or a file name."""
    if isinstance(condition, str):
        return condition[:SHORT]
    names = {number: name for name, number in reversed(_named_classes(pipe).items())}
    return names.get(condition, str(condition))


def _all_classes(pipe: Any) -> list[int]:
    numbers = sorted(set(_named_classes(pipe).values()))
    if not numbers:
        raise PipelineError(f"{type(pipe).__name__} does not list its classes: give class labels")
    if len(numbers) > _IN_ORDER:
        random.Random(0).shuffle(numbers)
    return numbers


def _class_count(pipe: Any) -> int:
    known = _named_classes(pipe)
    return max(known.values()) + 1 if known else pipe.transformer.config.num_embeds_ada_norm


def _named_classes(pipe: Any) -> dict[str, int]:
    return pipe.labels
