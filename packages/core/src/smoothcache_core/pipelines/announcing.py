"""Announcing the strength of guidance that a pipeline is called with."""

import functools
import inspect
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from smoothcache_core.calls.guidance import ARGUMENTS, announcing_guidance, guidance_in
from smoothcache_core.patching import subclass_like


@contextmanager
def pipeline_announcing(pipe: Any) -> Generator[None]:
    """Let every call of a pipeline announce the guidance that it was called with.

    The pipeline gets a subclass of its own class while the block runs, under the same name.

    Args:
        pipe: A pipeline whose class has a `__call__` with named arguments.
    """
    own = type(pipe)
    signature = inspect.signature(own.__call__)
    if not set(ARGUMENTS) & set(signature.parameters):
        yield
        return

    @functools.wraps(own.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        with announcing_guidance(**guidance_in(bound.arguments)):
            return own.__call__(self, *args, **kwargs)

    names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    pipe.__class__ = subclass_like(own, {**names, "__call__": call})
    try:
        yield
    finally:
        pipe.__class__ = own
