"""What a model is asked to show: classes or prompts, and what a user gave of them."""

from collections.abc import Sequence

from smoothcache_core.errors import PipelineError


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
