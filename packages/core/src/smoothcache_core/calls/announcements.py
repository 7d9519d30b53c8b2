"""What libraries announce about a run: a cache context (diffusers), timesteps, a step."""

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calls.call import Announced
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import AttachError
from smoothcache_core.patching import Override, Patch, Patches, attributes_of, undone_on_error
from smoothcache_core.relay import members_of

Hear = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], None]
"""Is told of a call of a method: the method itself, and the arguments."""


class Listener(Protocol):
    """What hears announcements: a clock, or a cache.

    Attributes:
        context: What was announced of the calls under way; None where nothing was.
    """

    context: Announced | None

    def restart(self) -> None:
        """The next call of the denoiser is the first of a new run."""
        ...

    def over(self) -> None:
        """The run is over; the next call is the first of a new one."""
        ...


def listening(
    listener: Listener,
    model: nn.Module,
    scheduler: Scheduler | None,
    watch: SchedulerWatch | None = None,
) -> Patches:
    """Let `listener` hear what the pipeline says, where it says anything.

    `model.cache_context(name)` (diffusers) names the branch, and maybe the step; a pipeline calls
    `model._reset_stateful_cache()` at its end if there is such a method, so one is put on models
    that have none; and `scheduler.set_timesteps` announce a new run.

    Args:
        listener: Is told of new runs and branches.
        model: The denoiser, compiled or not, or a `Relay`.
        scheduler: The scheduler, if there is one.
        watch: Is told what the scheduler is called with.

    Returns:
        What was replaced; all is restored by `undo`, or at the end of a `with` block.

    Raises:
        AttachError: `scheduler` is none.
    """
    if scheduler is not None and not callable(getattr(scheduler, "set_timesteps", None)):
        raise AttachError(f"a scheduler has set_timesteps, but {type(scheduler).__name__} has not")
    with undone_on_error() as patches:
        for member in map(denoiser, members_of(model)):
            context = getattr(member, "cache_context", None)
            if callable(context):
                patches.add(Patch(member, "cache_context", _naming(listener, context)))
            reset = getattr(member, "_reset_stateful_cache", _nothing)
            patches.add(Patch(member, "_reset_stateful_cache", _ending(listener, reset)))
        if scheduler is not None:
            patches.add(_Listening(scheduler, listener, watch or SchedulerWatch(scheduler)))
    return patches


_EARS = "_smoothcache_ears"
"""Where a scheduler that is listened to has its ears, so that all who listen share them."""


class _Ears:
    """Stands in for the methods of one scheduler, and tells who listens of their calls.

    Models may share a scheduler and be detached in any order, so there is one for all of them.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        names = [n for n in ("set_timesteps", "step") if callable(getattr(scheduler, n, None))]
        self.hear: dict[str, list[Hear]] = {name: [] for name in names}
        mine = attributes_of(scheduler)
        own = {name: self._on_instance(scheduler, name) for name in names if name in mine}
        others = {name: self._in_class(scheduler, name) for name in names if name not in own}
        with undone_on_error() as self.change:
            for name, told in own.items():
                self.change.add(Patch(scheduler, name, told))
            if others:
                self.change.add(Override(scheduler, {**others, _EARS: self}))
            else:
                self.change.add(Patch(scheduler, _EARS, self))

    def _on_instance(self, scheduler: Scheduler, name: str) -> Callable[..., Any]:
        original, listeners = getattr(scheduler, name), self.hear[name]

        @functools.wraps(original)
        def told(*args: Any, **kwargs: Any) -> Any:
            for hear in listeners:
                hear(original, args, kwargs)
            return original(*args, **kwargs)

        return told

    def _in_class(self, scheduler: Scheduler, name: str) -> Callable[..., Any]:
        told = self._on_instance(scheduler, name)
        own = getattr(type(scheduler), name, told)

        @functools.wraps(own)  # diffusers reads its signature
        def method(this: object, *args: Any, **kwargs: Any) -> Any:
            if this is scheduler:
                return told(*args, **kwargs)
            return own(this, *args, **kwargs)  # made by `type(scheduler).from_config`

        return method


class _Listening:
    """Tells a listener and a watch whenever the methods of a scheduler are called."""

    def __init__(self, scheduler: Scheduler, listener: Listener, watch: SchedulerWatch) -> None:
        def restart(*_: object) -> None:
            listener.restart()
            watch.hear_timesteps()

        places = {**vars(type(scheduler)), **attributes_of(scheduler)}
        self._ears: _Ears = places.get(_EARS) or _Ears(scheduler)
        self._own: dict[str, Hear] = {"set_timesteps": restart, "step": watch.hear_step}
        for name, listeners in self._ears.hear.items():
            listeners.append(self._own[name])

    def verify(self) -> None:
        if self._is_last():
            self._ears.change.verify()

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        self._ears.change.restore(owner, own)

    def undo(self) -> None:
        self.verify()
        last = self._is_last()
        for name, listeners in self._ears.hear.items():
            listeners.remove(self._own[name])
        if last:
            self._ears.change.undo()

    def _is_last(self) -> bool:
        return len(self._ears.hear["set_timesteps"]) == 1


def _ending(listener: Listener, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original`, the end of a pipeline, and tell `listener` of it."""

    @functools.wraps(original)
    def end(*args: Any, **kwargs: Any) -> Any:
        listener.over()
        return original(*args, **kwargs)

    return end


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing, as a method that a model does not have."""


_STEPS = "num_inference_steps"


def _number(said: object) -> int | None:
    """Return a number that was announced; None if it is none, or a tensor that is waited for."""
    return said if isinstance(said, int) and not isinstance(said, bool) else None


def _naming(listener: Listener, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original`, a context manager that is given a branch, and tell `listener` of it."""

    @functools.wraps(original)
    @contextmanager
    def name_context(name: str, *args: Any, **kwargs: Any) -> Generator[None]:
        said = Announced(name, _number(kwargs.get("step_index")), _number(kwargs.get(_STEPS)))
        before, listener.context = listener.context, said
        try:
            with original(name, *args, **kwargs):
                yield
        finally:
            listener.context = before

    return name_context
