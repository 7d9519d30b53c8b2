"""Putting code around a denoiser and its sites, and taking it off exactly.

Sites are wrapped by `sites.py`. Plain attributes on their modules say what to do, so compiled
code guards on them and needs no graph break: a module is recompiled once per mode, not once per
evaluation and not once per block.

The denoiser itself is wrapped on the instance, because `forward` may be called directly
(facebook DiT's `forward_with_cfg`) and because the driver must stay outside compiled code.
"""

import functools
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Site
from smoothcache_core.errors import AttachError
from smoothcache_core.wrapping.patching import instance_place, instance_undo
from smoothcache_core.wrapping.site_modules import Probe
from smoothcache_core.wrapping.sites import WrappedSite

_MARK = "_smoothcache_attached"


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
        return instance_undo(model, place, inner, driven, "")
    verify, undo = instance_undo(model, place, inner, driven, "")

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
        AttachError: Something of this library or a cache of diffusers is on the model already, or
            a site does not fit.
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
                wrapped = WrappedSite(self._inside, site, probes[index] if probes else None)
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


def _refuse_other_caches(model: nn.Module) -> None:
    name = type(model).__name__
    if model.__dict__.get(_MARK):
        raise AttachError(f"a cache is attached to this {name} already; detach it first")
    if getattr(model, "is_cache_enabled", False):
        raise AttachError(
            f"diffusers' own cache is enabled on this {name}; call its disable_cache() first"
        )
