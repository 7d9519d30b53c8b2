"""Putting code around the modules of somebody else's model, and taking it off exactly.

A site is wrapped by giving the module a subclass of its own class (`module.__class__ = ...`).
Plain attributes on the module say what to do, so compiled code guards on them and needs no graph
break: a module is recompiled once per mode, not once per evaluation and not once per block. A
module whose `forward` was already replaced on the instance (accelerate and diffusers do that) is
wrapped inside or outside that replacement instead, so that neither bypasses the other.

The denoiser itself is wrapped on the instance, because `forward` may be called directly
(facebook DiT's `forward_with_cfg`) and because the driver must stay outside compiled code.
"""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smoothcache_core._course import COMPUTE, FILL
from smoothcache_core._errors import AttachError
from smoothcache_core._mixins import (
    CachingDeltaSite,
    CachingSite,
    Histories,
    Probe,
    ProbedDeltaSite,
    ProbedSite,
    Values,
)
from smoothcache_core._sites import Site

_MARK = "_smoothcache_attached"
_PROBE = "_smoothcache_probe"
_INPUTS = "_smoothcache_inputs"


@dataclass(frozen=True)
class Step:
    """What to do with one call of the denoiser.

    Attributes:
        args: Positional arguments to call it with.
        kwargs: Keyword arguments to call it with.
        answer: What to take for its output instead of calling it, if not None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    answer: Any = None


class Driver(Protocol):
    """What stands around every call of the denoiser."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Return what to do with a call of these arguments."""
        ...

    def end(self, output: Any) -> Any:
        """Return what the caller gets, given the output of the denoiser or the answer."""
        ...

    def abort(self) -> None:
        """The denoiser raised an exception; it is passed on."""
        ...


def denoiser(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`'s wrapper, or `model` itself."""
    return getattr(model, "_orig_mod", model)


def is_compiled(model: nn.Module) -> bool:
    """Return whether `model` or any of its submodules was compiled."""
    return denoiser(model) is not model or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()
    )


# ---------------------------------------------------------------------------- one wrapped site


@dataclass(kw_only=True)
class WrappedSite:
    """A wrapped site.

    Attributes:
        site: The site.
        module: The wrapped module.
    """

    site: Site
    module: nn.Module
    _state: dict[str, Any]
    _undo: Callable[[], None]
    _verify: Callable[[], None]

    def prepare(self, mode: int, values: Values = ()) -> None:
        """Say what to do in the evaluation that begins, for `COMPUTE`, `STORE` and `REUSE`."""
        self._state.update(_state(mode, values))

    def prepare_fill(self, histories: Histories, weights: Tensor) -> None:
        """Say what to combine in the evaluation that begins, and how: `weights` is (terms,)."""
        self._state.update(_state(FILL))
        self._state["_smoothcache_histories"] = histories
        self._state["_smoothcache_weights"] = weights

    @property
    def mode(self) -> int:
        """What was last prepared."""
        return self._state["_smoothcache_mode"]

    @property
    def calls(self) -> int:
        """Calls since the last preparation."""
        return self._state["_smoothcache_calls"]

    def kept(self) -> Values:
        """Return what was kept since the last preparation."""
        return self._state["_smoothcache_values"]

    def verify(self) -> None:
        """Raise `AttachError` if somebody wrapped the module on top of us."""
        self._verify()

    def unwrap(self) -> None:
        """Restore the module exactly."""
        self._undo()


def _state(mode: int, values: Values = ()) -> dict[str, Any]:
    return {
        "_smoothcache_mode": mode,
        "_smoothcache_calls": 0,
        "_smoothcache_values": values,
        "_smoothcache_histories": (),
        "_smoothcache_weights": None,
    }


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


def _wrap_site(
    module: nn.Module, site: Site, mixin: type, attributes: dict[str, Any]
) -> WrappedSite:
    place = instance_place(module)
    if place is None:
        return _wrap_by_class(module, site, mixin, attributes)
    return _wrap_by_instance(module, site, mixin, attributes, place)


def instance_place(module: nn.Module) -> str | None:
    """Return where an instance-level `forward` lives; accelerate keeps it in `_old_forward`."""
    if "_old_forward" in module.__dict__:
        return "_old_forward"
    return "forward" if "forward" in module.__dict__ else None


def _wrap_by_class(
    module: nn.Module, site: Site, mixin: type, attributes: dict[str, Any]
) -> WrappedSite:
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
            raise _wrapped_on_top(site.path)

    def undo() -> None:
        module.__class__ = own
        for name in attributes:
            module.__dict__.pop(name, None)
        if is_ours(module.__dict__.get("_old_forward")):
            module.__dict__["_old_forward"] = types.MethodType(own.forward, module)
        if is_ours(module.__dict__.get("forward")):
            del module.__dict__["forward"]

    return WrappedSite(site=site, module=module, _state=module.__dict__, _undo=undo, _verify=verify)


def _wrap_by_instance(
    module: nn.Module, site: Site, mixin: type, attributes: dict[str, Any], place: str
) -> WrappedSite:
    inner = module.__dict__[place]
    runner = _subclass(_Inner, mixin)(inner)
    runner.__dict__.update(attributes)
    ours = functools.update_wrapper(functools.partial(runner.forward), inner)
    module.__dict__[place] = ours
    verify, undo = _instance_undo(module, place, inner, ours, site.path)
    return WrappedSite(site=site, module=module, _state=runner.__dict__, _undo=undo, _verify=verify)


def _instance_undo(
    module: nn.Module, place: str, inner: object, ours: object, path: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return (verify, undo) of an attribute `place` that was set from `inner` to `ours`."""

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


# ---------------------------------------------------------------------------- the denoiser


def _wrap_root(model: nn.Module, driver: Driver) -> tuple[Callable[[], None], Callable[[], None]]:
    """Put `driver` around every call of `model`; return (verify, undo)."""
    place = _root_place(model)
    inner = model.__dict__.get(place)
    call = getattr(model, place)
    begin = _never_traced(driver.begin)
    end = _never_traced(driver.end)

    @functools.wraps(call)
    def driven(*args: Any, **kwargs: Any) -> Any:
        step: Step = begin(args, kwargs)
        output = step.answer
        if output is None:
            try:
                output = call(*step.args, **step.kwargs)
            except BaseException:
                driver.abort()
                raise
        return end(output)

    model.__dict__[place] = driven
    if place != "forward":
        return _instance_undo(model, place, inner, driven, "")
    verify, undo = _instance_undo(model, place, inner, driven, "")

    def undo_forward() -> None:
        hooked = model.__dict__.get("_old_forward") is driven
        undo()
        if hooked and inner is None:
            model.__dict__["_old_forward"] = types.MethodType(type(model).forward, model)

    return verify, undo_forward


def _never_traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep `function` out of compiled code, should the denoiser be compiled with the cache on."""
    return torch.compiler.disable(function)


def _root_place(model: nn.Module) -> str:
    if model.__dict__.get("_compiled_call_impl") is not None:
        return "_compiled_call_impl"
    return instance_place(model) or "forward"


# ---------------------------------------------------------------------------- both together


class Wrapping:
    """A denoiser whose sites and calls are wrapped; `remove` restores it exactly.

    Args:
        model: The denoiser, compiled or not.
        sites: Sites to wrap.
        driver: Told about every call of the denoiser.
        probes: For measuring: one probe per site. Without it the sites cache.

    Raises:
        AttachError: Something of this library or a cache of diffusers is on the model already.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        driver: Driver,
        *,
        probes: Sequence[Probe] | None = None,
    ) -> None:
        self._inside = denoiser(model)
        _refuse_other_caches(self._inside)
        with ExitStack() as undo:
            self._inside.__dict__[_MARK] = True
            undo.callback(self._inside.__dict__.pop, _MARK, None)
            self.sites: list[WrappedSite] = []
            for index, site in enumerate(sites):
                module = self._inside.get_submodule(site.path)
                mixin, attributes = _behaviour(module, site, probes[index] if probes else None)
                wrapped = _wrap_site(module, site, mixin, attributes)
                undo.callback(wrapped.unwrap)
                self.sites.append(wrapped)
            self._verify_root, undo_root = _wrap_root(model, driver)
            undo.callback(undo_root)
            self._undo = undo.pop_all()

    def add(self, context: AbstractContextManager[object]) -> None:
        """Enter `context` now and leave it when the wrapping is removed."""
        self._undo.enter_context(context)

    def remove(self) -> None:
        """Restore the model exactly as it was.

        Raises:
            AttachError: Somebody wrapped on top; nothing was changed.
        """
        self._verify_root()
        for wrapped in self.sites:
            wrapped.verify()
        self._undo.close()


def _behaviour(module: nn.Module, site: Site, probe: Probe | None) -> tuple[type, dict[str, Any]]:
    delta = site.target == "delta"
    attributes: dict[str, Any] = _state(COMPUTE) if probe is None else {_PROBE: probe}
    if delta:
        attributes[_INPUTS] = _argument_indices(module, site)
    caching = CachingDeltaSite if delta else CachingSite
    probed = ProbedDeltaSite if delta else ProbedSite
    return (caching if probe is None else probed), attributes


def _argument_indices(module: nn.Module, site: Site) -> tuple[tuple[str, int], ...]:
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    missing = [name for name in site.inputs if name not in names]
    if missing or not site.inputs:
        raise AttachError(
            f"{site.path}: a delta needs the names of forward arguments, got {site.inputs}; "
            f"{type(module).__name__}.forward takes {names}"
        )
    return tuple((name, names.index(name)) for name in site.inputs)


def _refuse_other_caches(model: nn.Module) -> None:
    name = type(model).__name__
    if model.__dict__.get(_MARK):
        raise AttachError(f"a cache is attached to this {name} already; detach it first")
    if getattr(model, "is_cache_enabled", False):
        raise AttachError(
            f"diffusers' own cache is enabled on this {name}; call its disable_cache() first"
        )
