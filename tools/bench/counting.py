"""Counting the MACs that a policy really computes: calls of the modules that hold weights.

Caches replace the `forward` of attentions, blocks or the whole model, but what is computed ends in
linear layers and convolutions. Every MAC of an evaluation is booked on one of these leaves, those
of an attention product on the first leaf that the attention calls, and a call counts by its batch
rows, so that a pass of half the batch costs a half.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from smoothcache_core.calls.flops import flop_counter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Tally:
    """MACs counted so far."""

    macs: int = 0


@dataclass
class _Leaf:
    """What a leaf did in one evaluation."""

    macs: int = 0
    rows: int = 0


@dataclass
class _Frame:
    """A module call under way: FLOPs before it, those of the calls inside, and its first leaf."""

    before: int
    inside: int = 0
    first: str = ""


class _Booking:
    """Books MACs on leaves while an evaluation runs."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self._counter = counter
        self._frames: list[_Frame] = []
        self.leaves: dict[str, _Leaf] = {}

    def begin(self) -> None:
        self._frames.append(_Frame(before=self._counter.get_total_flops()))

    def end(self, path: str, rows: int | None) -> None:
        """Leave a module; `rows` are given for a leaf."""
        frame = self._frames.pop()
        flops = self._counter.get_total_flops() - frame.before
        own = flops - frame.inside
        if rows is not None:
            frame.first = path
            self.leaves.setdefault(path, _Leaf()).rows += rows
        if own and not frame.first:
            raise ValueError(f"{path!r} computes {own} FLOPs, but calls no layer to book them on")
        if own:
            self.leaves[frame.first].macs += own // 2
        if self._frames:
            outer = self._frames[-1]
            outer.inside += flops
            outer.first = outer.first or frame.first


def macs_by_leaf(model: nn.Module, evaluate: Callable[[], object]) -> dict[str, int]:
    """Return the MACs of one batch row in a call of every leaf, by running one evaluation.

    Args:
        model: The denoiser, without a cache.
        evaluate: Calls it once.

    Raises:
        ValueError: MACs are computed where there is no leaf to book them on.
    """
    with ExitStack() as stack:
        booking = _Booking(counter := flop_counter())
        for path, module in model.named_modules():
            before, after = _hooks(booking, path)
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        with counter:
            evaluate()
    return {path: leaf.macs // leaf.rows for path, leaf in booking.leaves.items() if leaf.macs}


def _hooks(booking: _Booking, path: str) -> tuple[Callable[..., None], Callable[..., None]]:
    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        del module, args
        booking.begin()

    def after(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        del output
        holds_weights = not list(module.children()) and list(module.parameters())
        booking.end(path, args[0].shape[0] if holds_weights else None)

    return before, after


@contextmanager
def counting(model: nn.Module, macs: Mapping[str, int]) -> Generator[Tally]:
    """Count the MACs of all calls of `model`.

    Args:
        model: The denoiser; put caches on inside.
        macs: MACs of one batch row in a call of every leaf.

    Yields:
        The count, updated as it happens.
    """
    tally = Tally()

    def hook(each: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def count(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            tally.macs += each * args[0].shape[0]

        return count

    with ExitStack() as stack:
        for path, each in macs.items():
            module = model.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(hook(each)).remove)
        yield tally
