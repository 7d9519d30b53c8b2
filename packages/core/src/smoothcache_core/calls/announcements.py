"""What libraries announce about a run: a cache context (diffusers), a new set of timesteps."""

import functools
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from smoothcache_core.calls.clock import Clock, Scheduler
from smoothcache_core.errors import AttachError


def listening(
    clock: Clock, model: nn.Module, scheduler: Scheduler | None
) -> AbstractContextManager[object]:
    """Let `clock` hear what the pipeline says, where it says anything.

    `model.cache_context(name)` (diffusers) names the branch, `model._reset_stateful_cache()`
    (called at the end of a pipeline) and `scheduler.set_timesteps` announce a new run. All are
    restored on leaving.

    Raises:
        AttachError: `scheduler` is none.
    """
    if scheduler is not None and not callable(getattr(scheduler, "set_timesteps", None)):
        raise AttachError(f"a scheduler has set_timesteps, but {type(scheduler).__name__} has not")
    with ExitStack() as stack:
        if callable(getattr(model, "cache_context", None)):
            stack.enter_context(_replaced(model, "cache_context", _naming(clock)))
        if callable(getattr(model, "_reset_stateful_cache", None)):
            stack.enter_context(_announced(model, "_reset_stateful_cache", clock))
        if scheduler is not None:
            stack.enter_context(_announced(scheduler, "set_timesteps", clock))
        return stack.pop_all()


Around = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def _replaced(owner: object, name: str, around: Around) -> Generator[None]:
    """Replace a method on the instance `owner`."""
    before = vars(owner).get(name)
    vars(owner)[name] = around(getattr(owner, name))
    try:
        yield
    finally:
        if before is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = before


class _Announcer:
    """Stands in for a method of an instance and tells clocks of its calls.

    Models may share a scheduler and be detached in any order, so there is one for all of them.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._owner, self._name = owner, name
        self._before = vars(owner).get(name)
        self._original: Callable[..., Any] = getattr(owner, name)
        self.clocks: list[Clock] = []
        functools.update_wrapper(self, self._original)  # diffusers reads its signature
        vars(owner)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for clock in self.clocks:
            clock.restart()
        return self._original(*args, **kwargs)

    def remove(self) -> None:
        if self._before is None:
            del vars(self._owner)[self._name]
        else:
            vars(self._owner)[self._name] = self._before


@contextmanager
def _announced(owner: object, name: str, clock: Clock) -> Generator[None]:
    """Restart `clock` whenever the method `name` of `owner` is called."""
    current = vars(owner).get(name)
    announcer = current if isinstance(current, _Announcer) else _Announcer(owner, name)
    announcer.clocks.append(clock)
    try:
        yield
    finally:
        announcer.clocks.remove(clock)
        if not announcer.clocks:
            announcer.remove()


def _naming(clock: Clock) -> Around:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
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

    return around
