"""Keeping the outputs of a site on a shelf, and filling it from there."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from smoothcache_core.outputs.parked import parked_leaves
from smoothcache_core.outputs.tensors import Output, blended, is_output, nbytes, scaled
from smoothcache_core.runtime.shelf import Line, Shelf


class SiteKeeper:
    """Keeps the outputs of one site; see `wrapping.sites.Keeper`.

    Args:
        shelf: Where they are put.
        line: Brings them back, those of one site after the other.
        path: Path of the site.
    """

    def __init__(self, shelf: Shelf, line: Line, path: str) -> None:
        self._shelf, self._line, self._path = shelf, line, path
        self._weights: Tensor | None = None
        self._channels: Sequence[Tensor] = ()
        self._taken: Sequence[Sequence[Output]] = ()

    def park(self, output: Any) -> Any:
        """Put an output away; what is none stays as it is, to be refused later."""
        return self._shelf.parked(output) if is_output(output) else output

    def expect(
        self,
        outputs: Sequence[Sequence[Any]],
        weights: Tensor | None = None,
        channels: Sequence[Tensor] = (),
    ) -> None:
        """Say what the evaluation that begins is filled from.

        Args:
            outputs: What was kept, the newest first, each a sequence of one output for each call.
            weights: The coefficient of each, (terms,); None for the newest alone.
            channels: Scales and shifts of every tensor of the newest, (2, channels) each; none for
                it as it is.
        """
        self._weights, self._channels, self._taken = weights, channels, ()
        self._line.expect(self._path, outputs)

    def arrive(self, call: int) -> Output:
        """Return what a call of the evaluation under way is filled with, from 0."""
        if not self._taken:
            self._taken = self._line.take(self._path)
        sources = [calls[call] for calls in self._taken]
        if call == len(self._taken[0]) - 1:
            self._taken = ()
        if self._channels:
            return scaled(sources[0], self._channels)
        return sources[0] if self._weights is None else blended(sources, self._weights)


def is_kept(value: object) -> bool:
    """Return whether a value is what can be kept of an output, put away or not."""
    return is_output(value) or bool(parked_leaves(value))


def kept_bytes(value: Any) -> int:
    """Return the bytes that an output takes where it is, put away or not."""
    parked = parked_leaves(value)
    return sum(each.bytes for each in parked) if parked else nbytes(value)
