"""Tensors that are kept elsewhere, or in fewer bits, until they are used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """A tensor in fewer bits.

    Attributes:
        tensor: What is stored, which shares no memory with anything.
        scale: What it is multiplied by, (), if it was scaled.
        dtype: Its data type before.
    """

    tensor: Tensor
    scale: Tensor | None
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of all that is stored."""
        parts = [self.tensor, *([] if self.scale is None else [self.scale])]
        return sum(each.numel() * each.element_size() for each in parts)

    def widened(self) -> Tensor:
        """Return the tensor in its data type before, as one that nobody else has."""
        if self.scale is not None:
            return (self.tensor.float() * self.scale).to(self.dtype)
        return self.tensor.to(self.dtype, copy=True)


def narrowed(tensor: Tensor, dtype: torch.dtype | None) -> Narrowed:
    """Return a copy of a tensor, rounded if its data type is a wider one of floating point.

    Args:
        tensor: What is to be stored.
        dtype: What it is rounded to; None for a copy as it is.
    """
    known = tensor.detach()
    if (
        dtype is None
        or not known.is_floating_point()
        or known.element_size() <= torch.empty((), dtype=dtype).element_size()
    ):
        return Narrowed(tensor=known.clone(), scale=None, dtype=known.dtype)
    if dtype == torch.bfloat16:  # of the range of float32
        return Narrowed(tensor=known.to(dtype), scale=None, dtype=known.dtype)
    most = torch.finfo(dtype).max
    largest = known.abs().amax().float() if known.numel() else known.new_zeros(()).float()
    scale = largest / most  # on its device: nobody waits for it
    scale = scale.clamp(min=_SMALLEST if dtype.itemsize == 1 else 1.0)
    return Narrowed(tensor=(known.float() / scale).to(dtype), scale=scale, dtype=known.dtype)


_SMALLEST = 1e-30  # scale of an output that is 0, which stays 0


class Parked:
    """A tensor that was put away; `Shelf.fetched` gives it back.

    Args:
        narrowed: What is stored, on the device or not.
        device: Where the tensor was.
        ready: Makes the current stream of the device wait until it has been copied; None if it is
            there.
    """

    def __init__(
        self,
        narrowed: Narrowed,
        device: torch.device,
        ready: Callable[[], object] | None = None,
    ) -> None:
        self.narrowed, self.device, self.ready = narrowed, device, ready

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the tensor that was put away."""
        return self.narrowed.dtype

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor that was put away."""
        return self.narrowed.tensor.shape

    @property
    def bytes(self) -> int:
        """Bytes that it takes where it is."""
        return self.narrowed.bytes


def parked_leaves(tree: Any) -> list[Parked]:
    """Return what was put away of an output of any structure, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Parked)]


def mapped(function: Callable[[Any], Any], kind: type, tree: Any) -> Any:
    """Apply a function to the leaves of one class in an output of any structure."""
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, kind) else leaf, tree)
