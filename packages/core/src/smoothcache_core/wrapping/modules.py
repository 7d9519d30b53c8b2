"""Putting code before the `forward` of one module of somebody else, and taking it off exactly.

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
from smoothcache_core.patching import Change, Patch, undone_on_error
from smoothcache_core.relay import members_of
from smoothcache_core.wrapping.copies import Reduced, reduced, refuse_copy, without

_HOOKED = ("_old_forward", "forward")
"""Where a `forward` of the instance may be: hooks of accelerate move it to `_old_forward`."""


@dataclass(frozen=True, kw_only=True)
class WrappedModule:
    """One wrapped module.

    Attributes:
        state: Attribute dictionary of whatever runs the mixin.
        change: Restores the module exactly.
    """

    state: dict[str, Any]
    change: Change


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
    if own is _Inner:
        return type(own.__name__, (mixin, own), names | {"__reduce_ex__": refuse_copy})

    def reduce_own(module: nn.Module, protocol: object) -> Reduced:
        return reduced(own, without(module, "_smoothcache_"))

    return type(own.__name__, (mixin, own), names | {"__reduce_ex__": reduce_own})


def wrap_module(
    module: nn.Module, path: str, mixin: type, attributes: dict[str, Any]
) -> WrappedModule:
    """Let `mixin` run before the `forward` of `module`.

    Args:
        module: What is wrapped: a site, or a block of a span.
        path: Its path, for errors.
        mixin: Class whose `forward` calls that of `super()`.
        attributes: What it reads and writes, by name.
    """
    place = instance_place(module)
    if place is None:
        change = _ClassChange(module, path, mixin, attributes)
        return WrappedModule(state=module.__dict__, change=change)
    inner = module.__dict__[place]
    runner = _subclass(_Inner, mixin)(inner)
    runner.__dict__.update(attributes)
    ours = functools.update_wrapper(functools.partial(runner.forward), inner)
    return WrappedModule(
        state=runner.__dict__, change=forward_patch(module, ours, place=place, path=path)
    )


def instance_place(module: nn.Module) -> str | None:
    """Return where an instance-level `forward` lives; accelerate keeps it in `_old_forward`."""
    return next((name for name in _HOOKED if name in module.__dict__), None)


def call_place(model: nn.Module) -> str:
    """Return where all calls of a denoiser pass, outside of what is compiled."""
    if model.__dict__.get("_compiled_call_impl") is not None:
        return "_compiled_call_impl"
    return instance_place(model) or "forward"


def forward_patch(
    module: nn.Module, ours: Callable[..., Any], *, place: str, path: str = ""
) -> Patch:
    """Put `ours` where calls of `module` pass.

    Args:
        module: What is called: a site, or the denoiser.
        ours: Calls what was at `place`.
        place: Name of the attribute, see `instance_place`.
        path: Path of the module, for errors; empty for the denoiser itself.
    """
    return Patch(module, place, ours, moves_to=_HOOKED, refusal=_on_top(path))


class _ClassChange:
    """A module that was given a subclass of its own class."""

    def __init__(
        self, module: nn.Module, path: str, mixin: type, attributes: dict[str, Any]
    ) -> None:
        self._module, self._path, self._mixin = module, path, mixin
        self._names = tuple(attributes)
        self._own = type(module)
        self._wrapped = _subclass(self._own, mixin)
        module.__dict__.update(attributes)
        module.__class__ = self._wrapped

    def _is_ours(self, name: str) -> bool:
        """Whether a hook keeps the bound method of our class in the attribute `name`."""
        value = self._module.__dict__.get(name)
        return isinstance(value, types.MethodType) and value.__func__ is self._mixin.forward

    def verify(self) -> None:
        replaced = "forward" in self._module.__dict__ and not self._is_ours("forward")
        hooked = self._is_ours("_old_forward")
        if type(self._module) is not self._wrapped or (replaced and not hooked):
            raise AttachError(_on_top(self._path))

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """Nothing: a module of another class gives a copy of its own class by itself."""

    def undo(self) -> None:
        self.verify()
        module, own = self._module, self._module.__dict__
        module.__class__ = self._own
        for name in self._names:
            own.pop(name, None)
        if self._is_ours("_old_forward"):
            own["_old_forward"] = types.MethodType(self._own.forward, module)
        if self._is_ours("forward"):
            del own["forward"]


def _on_top(path: str) -> str:
    return (
        f"{path or 'the denoiser'}: something replaced `forward` after the cache was attached "
        "(a hook of accelerate or diffusers?); remove it first, then detach the cache"
    )


@dataclass(frozen=True)
class Inner:
    """What a layer around a denoiser calls.

    Attributes:
        forward: What was called before the layer was put around it.
        member: Which of the denoisers that take turns it is, from 0; 0 where there is one.
    """

    forward: Callable[..., Any]
    member: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the denoiser."""
        return self.forward(*args, **kwargs)


Around = Callable[[Inner, tuple[Any, ...], dict[str, Any]], Any]
"""Makes a call of a module in place of its caller: gets what to call and its arguments."""


@contextmanager
def layered(model: nn.Module, around: Around) -> Generator[None]:
    """Put `around` between the callers of `model` and its forward; undo on leaving.

    Args:
        model: The denoiser, or a `Relay`: then that is done with each of its members.
        around: Makes the calls.

    Raises:
        AttachError: Something was put on top in between and is still there.
    """
    with undone_on_error() as patches:
        for index, member in enumerate(members_of(model)):
            patches.add(layer(member, around, index))
    with patches:
        yield


def layer(member: nn.Module, around: Around, index: int = 0) -> Patch:
    """Put `around` between the callers of one module and its forward.

    Args:
        member: The module, compiled or not.
        around: Makes the calls.
        index: Its number, which `around` is told.
    """
    place = call_place(member)
    inner = Inner(getattr(member, place), index)

    @functools.wraps(inner.forward)
    def layered_call(*args: Any, **kwargs: Any) -> Any:
        return around(inner, args, kwargs)

    return forward_patch(member, layered_call, place=place)
