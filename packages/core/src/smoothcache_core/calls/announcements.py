"""What libraries announce about a run: a cache context (diffusers), a new set of timesteps."""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from smoothcache_core.calls.clock import Clock, Scheduler
from smoothcache_core.errors import AttachError
from smoothcache_core.patching import Patch, Patches, undone_on_error


def listening(clock: Clock, model: nn.Module, scheduler: Scheduler | None) -> Patches:
    """Let `clock` hear what the pipeline says, where it says anything.

    `model.cache_context(name)` (diffusers) names the branch, `model._reset_stateful_cache()`
    (called at the end of a pipeline) and `scheduler.set_timesteps` announce a new run.

    Returns:
        What was replaced; all is restored by `undo`, or at the end of a `with` block.

    Raises:
        AttachError: `scheduler` is none.
    """
    if scheduler is not None and not callable(getattr(scheduler, "set_timesteps", None)):
        raise AttachError(f"a scheduler has set_timesteps, but {type(scheduler).__name__} has not")
    with undone_on_error() as patches:
        context = getattr(model, "cache_context", None)
        if callable(context):
            patches.add(Patch(model, "cache_context", _naming(clock, context)))
        if callable(getattr(model, "_reset_stateful_cache", None)):
            patches.add(_Announced(model, "_reset_stateful_cache", clock))
        if scheduler is not None:
            patches.add(_Announced(scheduler, "set_timesteps", clock))
    return patches


class _Announcer:
    """Stands in for a method of an instance and tells clocks of its calls.

    Models may share a scheduler and be detached in any order, so there is one for all of them.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._original: Callable[..., Any] = getattr(owner, name)
        self.clocks: list[Clock] = []
        functools.update_wrapper(self, self._original)  # diffusers reads its signature
        self.patch = Patch(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for clock in self.clocks:
            clock.restart()
        return self._original(*args, **kwargs)


class _Announced:
    """Restarts `clock` whenever the method `name` of `owner` is called."""

    def __init__(self, owner: object, name: str, clock: Clock) -> None:
        current = vars(owner).get(name)
        self._announcer = current if isinstance(current, _Announcer) else _Announcer(owner, name)
        self._announcer.clocks.append(clock)
        self._clock = clock

    def verify(self) -> None:
        if self._announcer.clocks == [self._clock]:
            self._announcer.patch.verify()

    def undo(self) -> None:
        self.verify()
        self._announcer.clocks.remove(self._clock)
        if not self._announcer.clocks:
            self._announcer.patch.undo()


def _naming(clock: Clock, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original`, a context manager that is given a branch, and tell `clock` of it."""

    @functools.wraps(original)
    @contextmanager
    def name_context(name: str, *args: Any, **kwargs: Any) -> Generator[None]:
        before, clock.context = clock.context, name
        try:
            with original(name, *args, **kwargs):
                yield
        finally:
            clock.context = before

    return name_context
