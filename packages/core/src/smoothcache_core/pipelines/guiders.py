"""Guidance that sits in a guider, as in diffusers' modular pipelines.

There guidance is a component: it says which step begins, and prepares the denoiser before every
pass. The loop announces nothing by `cache_context`, so that is done for it here, and whoever
listens to the denoiser hears the passes like those of any pipeline.
"""

import contextlib
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from smoothcache_core.calls.guidance import announcing_guidance, guidance_in
from smoothcache_core.patching import Patch, undone_on_error
from smoothcache_core.relay import members_of

_METHODS = ("set_state", "prepare_models", "cleanup_models")
"""What a guider has, by the names that diffusers gives them."""


@contextmanager
def guiders_announcing(pipe: Any, model: nn.Module) -> Generator[None]:
    """Let the guiders of a pipeline announce every pass to the denoiser that makes it.

    Args:
        pipe: A pipeline in the manner of diffusers; nothing is done if it has no guider.
        model: Its denoiser, or a `Relay`.
    """
    parts = getattr(pipe, "components", {}).values()
    guiders = [part for part in parts if all(callable(getattr(part, n, None)) for n in _METHODS)]
    with ExitStack() as under_way:
        with undone_on_error() as patches:
            for guider in guiders:
                told = _Announcing(guider, under_way)
                for name in _METHODS:
                    patches.add(Patch(guider, name, getattr(told, name)))
            for member in members_of(model) if guiders else ():
                if not callable(getattr(member, "cache_context", None)):
                    patches.add(Patch(member, "cache_context", _no_context))
        with patches:
            yield


def _no_context(name: str, **more: object) -> AbstractContextManager[None]:
    """Stand in for `cache_context` where a denoiser has none: it is there to be listened to."""
    del name, more
    return contextlib.nullcontext()


class _Announcing:
    """Stands in for the methods of one guider.

    Args:
        guider: Says which pass it is.
        under_way: Holds what is entered while a pass is under way.
    """

    def __init__(self, guider: Any, under_way: ExitStack) -> None:
        self._guider, self._under_way = guider, under_way
        self._set, self._prepare, self._cleanup = (getattr(guider, name) for name in _METHODS)
        self._step: dict[str, Any] = {}
        self._prepared = 0

    def set_state(self, step: int, num_inference_steps: int, *args: Any, **kwargs: Any) -> Any:
        """Note the step that begins."""
        self._step = {"step_index": step, "num_inference_steps": num_inference_steps}
        self._prepared = 0
        return self._set(step, num_inference_steps, *args, **kwargs)

    def prepare_models(self, denoiser: Any) -> Any:
        """Announce the pass that begins."""
        self._under_way.close()  # an exception may have cut the last one off
        result = self._prepare(denoiser)
        self._prepared += 1
        context = getattr(denoiser, "cache_context", _no_context)
        strength = guidance_in(vars(self._guider))
        self._under_way.enter_context(announcing_guidance(**strength))
        self._under_way.enter_context(context(self._pass(), **self._step))
        return result

    def _pass(self) -> str:
        """Return the name of the pass that was prepared."""
        known = [each.removeprefix("pred_") for each in self._guider._input_predictions]
        if len(known) == self._guider.num_conditions:
            return known[self._prepared - 1]
        if self._guider.is_unconditional:
            return "uncond"
        return "cond" if self._prepared == 1 else f"cond_{self._prepared}"

    def cleanup_models(self, denoiser: Any) -> Any:
        """The pass is over."""
        self._under_way.close()
        return self._cleanup(denoiser)
