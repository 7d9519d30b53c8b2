"""Putting a mixin before the `forward` of one module of somebody else, and taking it off exactly.

A module is wrapped by giving it a subclass of its own class (`module.__class__ = ...`). A module
whose `forward` was already replaced on the instance (accelerate and diffusers do that) is wrapped
inside or outside that replacement instead, so that neither bypasses the other.
"""

import functools
import types
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from smoothcache_core.errors import AttachError


@dataclass(frozen=True, kw_only=True)
class WrappedModule:
    """One wrapped module.

    Attributes:
        path: Its path in the denoiser.
        state: Attribute dictionary of whatever runs the mixin.
        unwrap: Restores the module exactly.
        verify: Raises `AttachError` if somebody wrapped the module on top of us.
    """

    path: str
    state: dict[str, Any]
    unwrap: Callable[[], None]
    verify: Callable[[], None]


class _Inner:
    """Calls what was found on the instance, so that the mixins' `super().forward` reaches it."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self._inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner(*args, **kwargs)


@functools.cache
def _subclass(own: type, mixin: type) -> type:
    """Return the class that puts `mixin` before `own`; one per pair: compiled code is shared."""
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (mixin, own), names)


def wrap_module(
    module: nn.Module, path: str, mixin: type, attributes: dict[str, Any]
) -> WrappedModule:
    """Let `mixin` run before the `forward` of `module`.

    Args:
        module: The module.
        path: Its path, for errors.
        mixin: Class whose `forward` calls that of `super()`.
        attributes: What it reads and writes, by name.
    """
    place = instance_place(module)
    if place is None:
        return _wrap_by_class(module, path, mixin, attributes)
    return _wrap_by_instance(module, path, mixin, attributes, place)


def instance_place(module: nn.Module) -> str | None:
    """Return where an instance-level `forward` lives; accelerate keeps it in `_old_forward`."""
    if "_old_forward" in module.__dict__:
        return "_old_forward"
    return "forward" if "forward" in module.__dict__ else None


def _wrap_by_class(
    module: nn.Module, path: str, mixin: type, attributes: dict[str, Any]
) -> WrappedModule:
    own = type(module)
    wrapped = _subclass(own, mixin)
    module.__dict__.update(attributes)
    module.__class__ = wrapped

    def is_ours(value: object) -> bool:
        return isinstance(value, types.MethodType) and value.__func__ is mixin.forward

    def verify() -> None:
        later = module.__dict__.get("forward")
        hooked = is_ours(module.__dict__.get("_old_forward"))
        if type(module) is not wrapped or (later is not None and not is_ours(later) and not hooked):
            raise _wrapped_on_top(path)

    def undo() -> None:
        module.__class__ = own
        for name in attributes:
            module.__dict__.pop(name, None)
        if is_ours(module.__dict__.get("_old_forward")):
            module.__dict__["_old_forward"] = types.MethodType(own.forward, module)
        if is_ours(module.__dict__.get("forward")):
            del module.__dict__["forward"]

    return WrappedModule(path=path, state=module.__dict__, unwrap=undo, verify=verify)


def _wrap_by_instance(
    module: nn.Module, path: str, mixin: type, attributes: dict[str, Any], place: str
) -> WrappedModule:
    inner = module.__dict__[place]
    runner = _subclass(_Inner, mixin)(inner)
    runner.__dict__.update(attributes)
    ours = functools.update_wrapper(functools.partial(runner.forward), inner)
    module.__dict__[place] = ours
    verify, undo = instance_undo(module, place, inner, ours, path)
    return WrappedModule(path=path, state=runner.__dict__, unwrap=undo, verify=verify)


def instance_undo(
    module: nn.Module, place: str, inner: object, ours: object, path: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return (verify, undo) of an attribute `place` that was set from `inner` to `ours`.

    `verify` raises `AttachError` if somebody wrapped on top of `ours`; `undo` puts `inner` back.
    """

    def current() -> str | None:
        for name in (place, "_old_forward", "forward"):
            if module.__dict__.get(name) is ours:
                return name
        if module.__dict__.get(place) in _below(inner):
            return None  # the hook was removed by restoring what was before it, and took us along
        raise _wrapped_on_top(path)

    def undo() -> None:
        name = current()
        if name is not None and inner is None:
            del module.__dict__[name]
        elif name is not None:
            module.__dict__[name] = inner

    return lambda: (current(), None)[1], undo


def _below(wrapper: object) -> list[object]:
    """Return what `wrapper` wraps, by `functools.wraps`, down to the innermost function."""
    inner = getattr(wrapper, "__wrapped__", None)
    return [] if inner is None else [inner, *_below(inner)]


def _wrapped_on_top(path: str) -> AttachError:
    return AttachError(
        f"{path or 'the denoiser'}: something replaced `forward` after the cache was attached "
        "(a hook of accelerate or diffusers?); remove it first, then detach the cache"
    )


@contextmanager
def own_attribute(owner: object, name: str, value: object) -> Generator[None]:
    """Give an object an attribute of its own; what it had of its own under the name comes back."""
    own = vars(owner)
    before = {name: own[name]} if name in own else {}
    own[name] = value
    try:
        yield
    finally:
        del own[name]
        own.update(before)


Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def layered(model: nn.Module, around: Around) -> Generator[None]:
    """Put `around` between the callers of `model` and its forward; undo on leaving."""
    place = instance_place(model) or "forward"
    before = model.__dict__.get(place)
    call = getattr(model, place)

    @functools.wraps(call)
    def layer(*args: Any, **kwargs: Any) -> Any:
        return around(call, args, kwargs)

    model.__dict__[place] = layer
    try:
        yield
    finally:
        if before is None:
            del model.__dict__[place]
        else:
            model.__dict__[place] = before
