"""Putting code around a denoiser and its sites, and taking it off exactly.

Sites are wrapped by `sites.py`. Plain attributes on their modules say what to do, so compiled
code guards on them and needs no graph break: a module is recompiled once per mode, not once per
evaluation and not once per block.

The denoiser itself is wrapped on the instance, because `forward` may be called directly
(facebook DiT's `forward_with_cfg`) and because the driver must stay outside compiled code.
"""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Adapter, Site
from smoothcache_core.errors import AttachError
from smoothcache_core.patching import Change, Patch, undone_on_error
from smoothcache_core.relay import members_of
from smoothcache_core.wrapping.copies import Reduced, reduced
from smoothcache_core.wrapping.modules import call_place, forward_patch
from smoothcache_core.wrapping.site_modules import Probe
from smoothcache_core.wrapping.sites import WrappedSite

MARK = "_smoothcache_driver"
"""Name of the attribute of a denoiser that holds what stands around its calls."""


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

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        """Return what to do with a call of these arguments; see `members_of` for `member`."""
        ...

    def end(self, output: Any) -> Any:
        """Return what the caller gets, given the output of the denoiser or the answer."""
        ...

    def abort(self) -> None:
        """The denoiser raised an exception; it is passed on."""
        ...


# ---------------------------------------------------------------------------- the denoiser


def _wrap_root(model: nn.Module, driver: Driver, member: int) -> Patch:
    """Put `driver` around every call of `model`, which is number `member` of a relay."""
    place = call_place(model)
    call = getattr(model, place)
    begin = _never_traced(driver.begin)
    end = _never_traced(driver.end)

    @functools.wraps(call)
    def driven(*args: Any, **kwargs: Any) -> Any:
        step: Step = begin(args, kwargs, member)
        output = step.answer
        if output is None:
            try:
                output = call(*step.args, **step.kwargs)
            except BaseException:
                driver.abort()
                raise
        return end(output)

    return forward_patch(model, driven, place=place)


def _never_traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep `function` out of compiled code, should the denoiser be compiled with the cache on."""
    return torch.compiler.disable(function)


# ---------------------------------------------------------------------------- both together


class Wrapping:
    """A denoiser whose sites and calls are wrapped; `remove` restores it exactly.

    Args:
        model: The denoiser, compiled or not, or a `Relay`, whose sites are wrapped in all members.
        sites: Sites to wrap.
        driver: Told about every call of the denoiser.
        probes: For measuring: one probe per site. Without it the sites cache.

    Attributes:
        sites: For every site what is wrapped, once in each member.

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
        members = members_of(model)
        self._members = [denoiser(member) for member in members]
        for inside in self._members:
            _refuse_other_caches(inside)
        self.sites: list[tuple[WrappedSite, ...]] = []
        with undone_on_error() as self._changes:
            for inside in self._members:
                self._changes.add(Patch(inside, MARK, driver))
                self._changes.add(Patch(inside, "__reduce_ex__", self._reducing(inside)))
            for index, site in enumerate(sites):
                self._wrap(site, probes[index] if probes else None)
            for index, member in enumerate(members):
                self._changes.add(_wrap_root(member, driver, index))

    def _wrap(self, site: Site, probe: Probe | None = None) -> tuple[WrappedSite, ...]:
        wrapped = tuple(WrappedSite(member, site, probe) for member in self._members)
        for each in wrapped:
            self._changes.add(each)
        self.sites.append(wrapped)
        return wrapped

    def of_member(self, member: int) -> list[WrappedSite]:
        """Return the wrapped sites of one member, in their order."""
        return [wrapped[member] for wrapped in self.sites]

    def wrapped(self, site: Site) -> tuple[WrappedSite, ...]:
        """Return a site as it is wrapped in each member; it is wrapped now if it is not yet.

        Raises:
            AttachError: One of its modules is wrapped as a part of another site.
        """
        known = next((each for each in self.sites if each[0].site == site), None)
        if known is not None:
            return known
        for other, *_ in self.sites:
            shared = sorted(set(site.paths) & set(other.site.paths))
            if shared:
                raise AttachError(
                    f"two schedules cache {shared[0]!r} in two ways, as {other.site.path!r} and as "
                    f"{site.path!r}; detach the cache and attach it with one of them"
                )
        return self._wrap(site)

    def _reducing(self, inside: nn.Module) -> Callable[[object], Reduced]:
        """Return what stands in for a denoiser's `__reduce_ex__`: copies of it have no cache."""

        def reduce_inside(protocol: object) -> Reduced:
            del protocol
            return reduced(type(inside), self._changes.before(inside))

        return reduce_inside

    def add(self, change: Change) -> None:
        """Undo `change` too when the wrapping is removed."""
        self._changes.add(change)

    def remove(self) -> None:
        """Restore the model exactly as it was.

        Raises:
            AttachError: Somebody wrapped on top; nothing was changed.
        """
        self._changes.undo()


@contextmanager
def removed_on_error(wrapping: Wrapping) -> Generator[None]:
    """Remove a wrapping again if what is done with it fails."""
    try:
        yield
    except BaseException:
        wrapping.remove()
        raise


def sites_of(adapter: Adapter, model: nn.Module) -> tuple[Site, ...]:
    """Return the sites of a denoiser; of several that take turns those that all of them have.

    Args:
        adapter: Says where the sites of one denoiser are.
        model: The denoiser, compiled or not, or a `Relay`.

    Raises:
        AdapterError: A denoiser does not have what the adapter expects.
    """
    first, *others = [tuple(adapter.sites(denoiser(member))) for member in members_of(model)]
    return tuple(site for site in first if all(site in found for found in others))


def _refuse_other_caches(model: nn.Module) -> None:
    """Raise `AttachError` if a cache is on the denoiser, of this library or of diffusers."""
    name = type(model).__name__
    if model.__dict__.get(MARK):
        raise AttachError(
            f"a cache is attached to this {name} already; detach it first (if its handle is lost: "
            "smoothcache_core.runtime.attachment_of(model).detach())"
        )
    if getattr(model, "is_cache_enabled", False):
        raise AttachError(
            f"diffusers' own cache is enabled on this {name}; call its disable_cache() first"
        )
