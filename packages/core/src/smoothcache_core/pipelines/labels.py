"""Classes and prompts, as a user gives them, and which of them a pipeline takes."""

from collections.abc import Mapping, Sequence

from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.diffusers_shaped import call_arguments

SHORT = 40
"""Characters of a prompt, which a caption or the name of a file has room for."""

_CONDITIONS = ("class_labels", "prompt")


def condition_argument(pipe: object) -> str:
    """Return the argument that says what a pipeline is to show: `"class_labels"` or `"prompt"`.

    Raises:
        PipelineError: It takes neither.
    """
    names = call_arguments(pipe)
    found = next((name for name in _CONDITIONS if name in names), None)
    if found is None:
        raise PipelineError(
            f"{type(pipe).__name__} takes neither class labels nor prompts, but {sorted(names)}"
        )
    return found


def chosen_classes(text: str, *, names: Mapping[str, int], count: int) -> list[int]:
    """Return the class numbers that a text such as `"207,0-9,owl"` means.

    Args:
        text: Numbers, ranges and names, separated by commas.
        names: The numbers of classes by their names, as far as they have names.
        count: Number of classes of the model; numbers are from 0 to `count - 1`.

    Raises:
        PipelineError: A part of it is none of the model's classes.
    """
    return [number for part in text.split(",") for number in _classes(part.strip(), names, count)]


def prompts_for(model: str, *, labels: str | None, prompts: Sequence[str]) -> list[str]:
    """Return the prompts that a user gave for a model of prompts.

    Args:
        model: What the model is called in errors.
        labels: Class labels that were given.
        prompts: Prompts that were given.

    Raises:
        PipelineError: Labels were given, or no prompts.
    """
    if labels is not None:
        raise PipelineError(f"{model} takes prompts, not class labels")
    if not prompts:
        raise PipelineError(f"{model} takes prompts: give at least one")
    return list(prompts)


def refuse_prompts(model: str, prompts: Sequence[str]) -> None:
    """Refuse prompts for a model of classes.

    Raises:
        PipelineError: There are some.
    """
    if prompts:
        raise PipelineError(f"{model} takes class labels, not prompts")


def _classes(text: str, names: Mapping[str, int], count: int) -> list[int]:
    if text in names:
        return [names[text]]
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        example = f", or names such as {list(names)[:3]}" if names else ""
        raise PipelineError(
            f"{text!r} is no class of this model; give numbers, ranges such as 0-9{example}"
        )
    numbers = list(range(int(first), int(last if dash else first) + 1))
    if not numbers or numbers[-1] >= count:
        raise PipelineError(f"classes {text!r} are not among 0-{count - 1}, those of this model")
    return numbers
