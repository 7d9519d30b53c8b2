"""What a wrapped site does: mixins that are put before its own class.

They read plain attributes, so that compiled code guards on them and needs no graph break.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from smoothcache_core.outputs.tensors import (
    Output,
    blended,
    cloned,
    detached,
    flat,
    rebuilt,
    scaled,
    version,
)
from smoothcache_core.schedule.timeline import FILLED, REUSE, SCALE, STORE

CallOutputs = tuple[Output, ...]
"""The outputs of a site in one evaluation, one for each call: a site may be called in chunks."""


FillSources = tuple[tuple[Output, ...], ...]
"""For each call of a site the outputs that a fill combines, the newest first."""


class Probe(Protocol):
    """What sees every call of one site, for measuring."""

    def enter(self) -> None:
        """The site is about to be called."""
        ...

    def leave(self, output: Output) -> None:
        """The site gave this output."""
        ...


class _Caching:
    """What the modules of cached sites share: they count their calls, fill and store.

    Methods have the prefix of the attributes, since they become members of modules of others.
    """

    _smoothcache_mode: int
    _smoothcache_calls: int
    _smoothcache_values: CallOutputs
    _smoothcache_sources: FillSources
    _smoothcache_weights: Tensor
    _smoothcache_channels: tuple[Tensor, ...]
    _smoothcache_inputs: tuple[tuple[str, int], ...]
    _smoothcache_copies: bool
    _smoothcache_graph: bool
    _smoothcache_versions: tuple[int, ...]
    _smoothcache_park: Callable[[Any, Output], object] | None
    _smoothcache_arrive: Callable[[Any, int], Output] | None

    def _smoothcache_counted(self) -> int:
        """Return the number of this call in the evaluation, from 0."""
        call = self._smoothcache_calls
        self._smoothcache_calls = call + 1
        return call

    def _smoothcache_filled(self, call: int) -> Output:
        """Return what a skipped call gives: what was stored, or a combination of it."""
        if self._smoothcache_arrive is not None:
            return self._smoothcache_arrive(self, call)
        if self._smoothcache_mode == REUSE:
            stored = self._smoothcache_values[call]
            return (
                cloned(stored, graph=self._smoothcache_graph)
                if self._smoothcache_copies
                else stored
            )
        if self._smoothcache_mode == SCALE:
            return scaled(self._smoothcache_values[call], self._smoothcache_channels)
        return blended(self._smoothcache_sources[call], self._smoothcache_weights)

    def _smoothcache_store(self, output: Any) -> None:
        self._smoothcache_values = (*self._smoothcache_values, output)

    def _smoothcache_store_output(self, output: Output) -> None:
        """Store what the caller gets, itself or a copy, and note how often it was changed yet."""
        if self._smoothcache_park is not None:
            self._smoothcache_store(self._smoothcache_park(self, output))
            return
        if self._smoothcache_copies:
            self._smoothcache_store(cloned(output, graph=self._smoothcache_graph))
            return
        self._smoothcache_store(output if self._smoothcache_graph else detached(output))
        if not torch.compiler.is_compiling():  # compiled code knows no versions
            self._smoothcache_versions = (*self._smoothcache_versions, version(output))

    def _smoothcache_freed(self, output: Output) -> object:
        """Return what is stored of a new tensor."""
        if self._smoothcache_park is not None:
            return self._smoothcache_park(self, output)
        return output if self._smoothcache_graph else detached(output)


class CachingSite(_Caching):
    """Calls the site, calls it and stores its output, gives a stored one, or makes one of some."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = self._smoothcache_counted()
        if self._smoothcache_mode in FILLED:
            return self._smoothcache_filled(call)
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if self._smoothcache_mode == STORE:
            self._smoothcache_store_output(output)
        return output


class CachingDeltaSite(_Caching):
    """Like `CachingSite`, but stores output minus input."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = self._smoothcache_counted()
        inputs = named_inputs(self._smoothcache_inputs, args, kwargs)
        if self._smoothcache_mode in FILLED:
            return combined(torch.add, inputs, self._smoothcache_filled(call))
        if self._smoothcache_mode == STORE:
            inputs = _copied(inputs, graph=self._smoothcache_graph)
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if self._smoothcache_mode == STORE:
            self._smoothcache_store(self._smoothcache_freed(combined(torch.sub, output, inputs)))
        return output


class CachingSpanStart(_Caching):
    """Like `CachingDeltaSite` for the first block of a span, which stores its own input only."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = self._smoothcache_counted()
        inputs = named_inputs(self._smoothcache_inputs, args, kwargs)
        if self._smoothcache_mode in FILLED:
            return combined(torch.add, inputs, self._smoothcache_filled(call))
        if self._smoothcache_mode == STORE:
            self._smoothcache_store(_copied(inputs, graph=self._smoothcache_graph))
        return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


class CachingSpanPart(_Caching):
    """The other blocks of a span: they pass on what they are given, or compute; one stores that."""

    _smoothcache_single: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._smoothcache_counted()
        if self._smoothcache_mode == REUSE:
            inputs = named_inputs(self._smoothcache_inputs, args, kwargs)
            return inputs[0] if self._smoothcache_single else inputs
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if self._smoothcache_mode == STORE:
            self._smoothcache_store(cloned(output, graph=self._smoothcache_graph))
        return output


class ProbedSite:
    """Shows every output to a probe and changes nothing."""

    _smoothcache_probe: Probe

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._smoothcache_probe.enter()
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        self._smoothcache_probe.leave(cloned(output))  # its block may change it in place
        return output


class ProbedDeltaSite:
    """Like `ProbedSite`, but shows output minus input."""

    _smoothcache_probe: Probe
    _smoothcache_inputs: tuple[tuple[str, int], ...]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = _copied(named_inputs(self._smoothcache_inputs, args, kwargs))
        self._smoothcache_probe.enter()
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        self._smoothcache_probe.leave(detached(combined(torch.sub, output, inputs)))
        return output


class ProbedSpanStart:
    """The first block of a span: notes its input for the last, and changes nothing."""

    _smoothcache_probe: Probe
    _smoothcache_inputs: tuple[tuple[str, int], ...]
    _smoothcache_entered: list[tuple[Tensor, ...]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = _copied(named_inputs(self._smoothcache_inputs, args, kwargs))
        self._smoothcache_entered[:] = [inputs]
        self._smoothcache_probe.enter()
        return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


class ProbedSpanEnd:
    """The last block of a span: shows its output minus the input of the first to a probe."""

    _smoothcache_probe: Probe
    _smoothcache_entered: list[tuple[Tensor, ...]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        inputs = self._smoothcache_entered.pop()
        self._smoothcache_probe.leave(detached(combined(torch.sub, output, inputs)))
        return output


def named_inputs(
    names: tuple[tuple[str, int], ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Return arguments of a call, each given by its name and its index among the parameters.

    Args:
        names: Their names and indices.
        args: Positional arguments of the call.
        kwargs: Its keyword arguments.
    """
    return tuple(kwargs[name] if name in kwargs else args[index] for name, index in names)


def _copied(inputs: tuple[Tensor, ...], *, graph: bool = False) -> tuple[Tensor, ...]:
    """Copy what a module may change in place."""
    return tuple(tensor.clone() if graph else tensor.detach().clone() for tensor in inputs)


def combined(operation: Callable[[Any, Any], Tensor], left: Output, right: Output) -> Output:
    """Apply `operation` to the tensors of two outputs, pair by pair; None stays None.

    The result has the structure of the one that holds more than tensors, if one does.
    """
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return operation(left, right)
    lefts = (left,) if isinstance(left, Tensor) else left
    rights = (right,) if isinstance(right, Tensor) else right
    results = tuple(operation(a, b) for a, b in zip(flat(lefts), flat(rights), strict=True))
    for each in (lefts, rights):
        if not all(isinstance(item, Tensor) for item in each):
            return rebuilt(each, iter(results))
    single = isinstance(left, Tensor) or isinstance(right, Tensor)
    return results[0] if single else results
