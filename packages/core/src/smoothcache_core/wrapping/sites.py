"""A wrapped site: one module, or a span of consecutive blocks."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.sites import Site
from smoothcache_core.errors import AttachError
from smoothcache_core.outputs.tensors import Output, detached, is_output, version
from smoothcache_core.patching import undone_on_error
from smoothcache_core.schedule.timeline import COMPUTE, FILL, FILLED, REUSE, SCALE, STORE
from smoothcache_core.wrapping.modules import WrappedModule, wrap_module
from smoothcache_core.wrapping.site_modules import (
    CachingDeltaSite,
    CachingSite,
    CachingSpanPart,
    CachingSpanStart,
    CallOutputs,
    FillSources,
    Probe,
    ProbedDeltaSite,
    ProbedSite,
    ProbedSpanEnd,
    ProbedSpanStart,
    combined,
)

_PROBE = "_smoothcache_probe"


_INPUTS = "_smoothcache_inputs"


_ENTERED = "_smoothcache_entered"


_KEEPER = "_smoothcache_keeper"


class Keeper(Protocol):
    """Keeps the outputs of one site elsewhere, or in fewer bits."""

    def park(self, output: Any) -> Any:
        """Return what is kept of an output of the site."""
        ...

    def arrive(self, call: int) -> Output:
        """Return what a call of the evaluation under way is filled with, from 0."""
        ...


class WrappedSite:
    """A site that is told before every evaluation what to do in it.

    Args:
        model: The denoiser, not its compiled wrapper.
        site: What of the model is wrapped, and whether its output or its delta is cached.
        probe: For measuring: what sees its outputs. Without it the site caches.

    Attributes:
        site: What is wrapped, as it was given.
        mode: What the site does in the evaluation under way, see `schedule.timeline`.
        copies: Whether copies are stored and given, because somebody changes outputs in place.
        graph: Whether gradients flow through what is stored.
        keeper: Keeps its outputs; None where they are kept as they are.

    Raises:
        AttachError: A delta names forward arguments that are none.
    """

    def __init__(self, model: nn.Module, site: Site, probe: Probe | None = None) -> None:
        self.site = site
        self.mode = COMPUTE
        self.copies = False
        self.graph = False
        self.keeper: Keeper | None = None
        modules = {path: model.get_submodule(path) for path in site.paths}
        names = {
            path: argument_indices(module, site, path) if site.target == "delta" else ()
            for path, module in modules.items()
        }
        self._hooks = vars(modules[site.path])["_forward_hooks"]
        entered: list[object] = []
        self._parts: list[WrappedModule] = []
        with undone_on_error() as self._changes:
            for path, mixin in (_caching(site) if probe is None else _probing(site)).items():
                attributes = (
                    _state(COMPUTE) | self._ways()
                    if probe is None
                    else {_PROBE: probe, _ENTERED: entered}
                )
                attributes[_INPUTS] = names[path]
                self._parts.append(wrap_module(modules[path], path, mixin, attributes))
                self._changes.add(self._parts[-1].change)

    # ------------------------------------------------------------------ for a cache

    def prepare(self, mode: int, values: CallOutputs = ()) -> None:
        """Say what to do in the evaluation that begins, for `COMPUTE`, `STORE` and `REUSE`."""
        self._parts[0].state.update(_state(mode, values), **self._ways())
        self._prepare_others(mode, values)

    def prepare_arrival(self, mode: int, values: Sequence[Any]) -> None:
        """Say that the keeper fills the evaluation that begins, in one of the modes `FILLED`.

        Args:
            mode: `REUSE`, `FILL` or `SCALE`.
            values: What was kept of one output for each call.
        """
        self._parts[0].state.update(_state(mode), **self._ways())
        self._prepare_others(mode, values)

    def prepare_fill(self, sources: FillSources, weights: Tensor) -> None:
        """Say what to combine in the evaluation that begins, and how: `weights` is (terms,)."""
        state = self._parts[0].state
        state.update(_state(FILL), **self._ways())
        state["_smoothcache_sources"] = sources
        state["_smoothcache_weights"] = weights
        self._prepare_others(FILL, sources[0])

    def prepare_scale(self, values: CallOutputs, channels: Sequence[Tensor]) -> None:
        """Say what to scale and shift in the evaluation that begins.

        Args:
            values: What was kept, an output for each call.
            channels: For each tensor of an output scales and shifts, (2, channels).
        """
        self.prepare(SCALE, values)
        self._parts[0].state["_smoothcache_channels"] = tuple(channels)

    def _prepare_others(self, mode: int, values: Sequence[Any]) -> None:
        """Let the other blocks of a span pass on what they are given, or compute."""
        self.mode = mode
        passing = mode in FILLED
        for part in self._parts[1:]:
            keeping = mode == STORE and part is self._parts[-1]
            own = REUSE if passing else STORE if keeping else COMPUTE
            part.state.update(_state(own), **self._ways())
            part.state["_smoothcache_single"] = passing and not isinstance(values[0], tuple)

    def _ways(self) -> dict[str, Any]:
        """Return the attributes that say how outputs are stored and given."""
        # a hook may change what it gets in place; tensors of inference mode do not count changes
        copies = self.copies or bool(self._hooks) or torch.is_inference_mode_enabled()
        ways = {"_smoothcache_copies": copies, "_smoothcache_graph": self.graph}
        parks = self.keeper is not None and not self.site.last  # a span's delta is made later
        return ways | {
            _KEEPER: self.keeper,
            "_smoothcache_park": _parking() if parks else None,
            "_smoothcache_arrive": _arriving() if self.keeper is not None else None,
        }

    @property
    def was_changed(self) -> bool:
        """Whether what was stored or given since the last preparation was changed in place."""
        state = self._parts[0].state
        before, values = state["_smoothcache_versions"], state["_smoothcache_values"]
        return len(before) == len(values) and tuple(map(version, values)) != before

    @property
    def calls(self) -> int:
        """Calls since the last preparation, the fewest of any block."""
        return min(part.state["_smoothcache_calls"] for part in self._parts)

    def kept(self) -> CallOutputs:
        """Return what was kept since the last preparation; for a delta, output minus input."""
        first, *others = [part.state["_smoothcache_values"] for part in self._parts]
        if not others or self.mode != STORE or not all(map(is_output, others[-1])):
            return others[-1] if others and self.mode == STORE else first
        if len(first) != len(others[-1]):
            raise AttachError(
                f"the first and the last block of {self.site.path!r} ... {self.site.last!r} were "
                f"called {len(first)} and {len(others[-1])} times; a span needs as many"
            )
        pairs = zip(others[-1], first, strict=True)
        deltas = [combined(torch.sub, output, inputs) for output, inputs in pairs]
        if self.keeper is not None:
            return tuple(self.keeper.park(delta) for delta in deltas)
        return tuple(delta if self.graph else detached(delta) for delta in deltas)

    # ------------------------------------------------------------------ for everybody

    def verify(self) -> None:
        """Raise `AttachError` if somebody wrapped the site on top of us."""
        self._changes.verify()

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """See `Change.restore`."""
        self._changes.restore(owner, own)

    def undo(self) -> None:
        """Restore the site exactly."""
        self._changes.undo()


@cache
def _parking() -> Callable[[Any, Output], object]:
    """Return what parks an output of a module: one function for all, which compiled code calls."""
    parked: Any = torch.compiler.disable(lambda module, output: vars(module)[_KEEPER].park(output))
    return parked


@cache
def _arriving() -> Callable[[Any, int], Output]:
    """Return what fills a call of a module, likewise."""
    filled: Any = torch.compiler.disable(lambda module, call: vars(module)[_KEEPER].arrive(call))
    return filled


def _state(mode: int, values: CallOutputs = ()) -> dict[str, Any]:
    """Return the attributes of a module at the beginning of an evaluation."""
    return {
        "_smoothcache_mode": mode,
        "_smoothcache_calls": 0,
        "_smoothcache_values": values,
        "_smoothcache_sources": (),
        "_smoothcache_weights": None,
        "_smoothcache_channels": (),
        "_smoothcache_single": False,
        "_smoothcache_versions": tuple(map(version, values)),
    }


def _caching(site: Site) -> dict[str, type]:
    """Return the mixins of a site that caches, by the paths of its modules."""
    if not site.last:
        return {site.path: CachingDeltaSite if site.target == "delta" else CachingSite}
    return dict.fromkeys(site.paths, CachingSpanPart) | {site.path: CachingSpanStart}


def _probing(site: Site) -> dict[str, type]:
    """Return the mixins of a site that is measured, by the paths of its modules."""
    if not site.last:
        return {site.path: ProbedDeltaSite if site.target == "delta" else ProbedSite}
    return {site.path: ProbedSpanStart, site.last: ProbedSpanEnd}


def argument_indices(module: nn.Module, site: Site, path: str) -> tuple[tuple[str, int], ...]:
    """Return the names of a delta's inputs with their indices among the parameters of `forward`.

    Args:
        module: A module of the site.
        site: One whose delta is cached.
        path: Path of the module, for the error.

    Raises:
        AttachError: The site names none, or others than `forward` takes.
    """
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    missing = [name for name in site.inputs if name not in names]
    if missing or not site.inputs:
        raise AttachError(
            f"{path}: a delta needs the names of forward arguments, got {site.inputs}; "
            f"{type(module).__name__}.forward takes {names}"
        )
    return tuple((name, names.index(name)) for name in site.inputs)
