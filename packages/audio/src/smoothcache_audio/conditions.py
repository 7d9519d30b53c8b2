"""What a model is asked for, from what a user gave, and its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smoothcache_core.pipelines.labels import chosen_classes, prompts_for, refuse_prompts

from smoothcache_audio.loading import DIGITS, WORD_SECONDS
from smoothcache_audio.stable_audio_tools import is_stable_audio_tools

_DIGIT = "digit"


def choose_conditions(
    model: Any, *, labels: str | None, prompts: Sequence[str], digits: bool
) -> list[Any]:
    """Return the conditions to sample.

    Args:
        model: What `load_model` returned.
        labels: Class numbers, ranges `"0-9"` or, for digits, names, separated by commas; None for
            all classes.
        prompts: Prompts, for text-conditional models.
        digits: Whether it is a shipped model, which says digits.

    Raises:
        PipelineError: The model takes the other kind, or does not know a class.
    """
    classes = _classes(model)
    if classes is None:
        return prompts_for("this model", labels=labels, prompts=prompts)
    refuse_prompts("this model", prompts)
    names = {name: number for number, name in enumerate(DIGITS)} if digits else {}
    chosen = chosen_classes(labels or f"0-{classes - 1}", names=names, count=classes)
    if not digits:
        return chosen
    return [{_DIGIT: number, "seconds_total": WORD_SECONDS} for number in chosen]


def digit_of(condition: Mapping[str, Any]) -> int:
    """Return the digit that a shipped model is asked for."""
    return int(condition[_DIGIT])


def _classes(model: Any) -> int | None:
    """Return how many classes a class-conditional model has; None if it takes prompts."""
    if not is_stable_audio_tools(model):
        return None
    kinds = [
        (type(conditioner).__name__, conditioner)
        for conditioner in model.conditioner.conditioners.values()
    ]
    numbers = [conditioner for kind, conditioner in kinds if kind == "IntConditioner"]
    if any(kind == "T5Conditioner" for kind, _ in kinds) or len(numbers) != 1:
        return None
    return numbers[0].max_val + 1
