"""Keeping outputs in the memory of the CPU or in fewer bits, and bringing them back in time.

On CUDA an output is copied to pinned memory on a stream of its own, beside the computation, and so
is the way back; the host waits for neither. On a CPU both are plain copies, by the same code.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.outputs.parked import Narrowed, Parked, mapped, narrowed
from smoothcache_core.schedule.storage import Storage


class Shelf:
    """Puts tensors away as a `Storage` says, and brings them back.

    Args:
        storage: Where they are kept, and in which data type.
    """

    def __init__(self, storage: Storage) -> None:
        self._moves = storage.place == "cpu"
        self._dtype = None if storage.dtype is None else getattr(torch, storage.dtype)
        self._streams: dict[tuple[torch.device, str], torch.cuda.Stream] = {}

    def parked(self, tree: Any) -> Any:
        """Return an output of any structure whose tensors are put away."""
        return mapped(self._park, Tensor, tree)

    def fetched(self, tree: Any) -> Any:
        """Return it as it was, but for rounding; its tensors are nobody else's."""
        return mapped(lambda each: each.widened(), Narrowed, self.on_the_way(tree).arrived())

    def on_the_way(self, tree: Any) -> "Arriving":
        """Begin to bring back an output, without waiting for it."""
        return Arriving(mapped(self._sent, Parked, tree))

    # ------------------------------------------------------------------ one tensor

    def _park(self, tensor: Tensor) -> Parked:
        small, device = narrowed(tensor, self._dtype), tensor.device
        if not self._moves or device.type == "cpu":
            return Parked(small, device)
        if device.type != "cuda":
            return Parked(_moved(small, small.tensor.to("cpu")), device)
        host = torch.empty(
            small.tensor.shape, dtype=small.tensor.dtype, device="cpu", pin_memory=True
        )
        stream = self._stream(device, "out")
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            host.copy_(small.tensor, non_blocking=True)
            there = stream.record_event()
        small.tensor.record_stream(stream)
        # the scale is one number: it stays where it is
        return Parked(
            _moved(small, host), device, lambda: self._stream(device, "in").wait_event(there)
        )

    def _sent(self, parked: Parked) -> "_Sent":
        small, device = parked.narrowed, parked.device
        if small.tensor.device == device:
            return _Sent(small)
        if device.type != "cuda":
            return _Sent(_moved(small, small.tensor.to(device)))
        if parked.ready is not None:
            parked.ready()
        stream = self._stream(device, "in")
        with torch.cuda.stream(stream):
            tensor = small.tensor.to(device, non_blocking=True)
        return _Sent(_moved(small, tensor), stream)

    def _stream(self, device: torch.device, way: str) -> torch.cuda.Stream:
        key = device, way
        if key not in self._streams:
            self._streams[key] = torch.cuda.Stream(device)
        return self._streams[key]


def _moved(small: Narrowed, tensor: Tensor) -> Narrowed:
    return Narrowed(tensor=tensor, scale=small.scale, dtype=small.dtype)


class _Sent:
    """A tensor that is being copied to its device."""

    def __init__(self, narrowed: Narrowed, stream: torch.cuda.Stream | None = None) -> None:
        self._narrowed, self._stream = narrowed, stream

    def arrived(self) -> Narrowed:
        """Return it; what the device does from now on waits for the copy."""
        if self._stream is not None:
            tensor = self._narrowed.tensor
            current = torch.cuda.current_stream(tensor.device)
            current.wait_stream(self._stream)
            tensor.record_stream(current)
        return self._narrowed


class Arriving:
    """An output that is being brought back.

    Args:
        tree: Its structure, with what is being copied for leaves.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    def arrived(self) -> Any:
        """Return the output in the form in which it was stored, there for the device."""
        return mapped(_Sent.arrived, _Sent, self._tree)


class Line:
    """Brings the outputs of sites back one ahead, in the order in which the sites were called.

    Args:
        shelf: Where they are.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._after: dict[str, str] = {}
        self._last = ""
        self.begin()

    def begin(self) -> None:
        """Forget what was waited for in the evaluation before."""
        self._waiting: dict[str, Sequence[Any]] = {}
        self._coming: dict[str, Arriving] = {}
        self._last = ""

    def expect(self, path: str, outputs: Sequence[Any]) -> None:
        """Say what a site will be filled from, the outputs of its first call, the newest first."""
        self._waiting[path] = outputs

    def take(self, path: str) -> Any:
        """Return what a site is filled from, and begin with the site that came after it before."""
        outputs = self._waiting.pop(path)
        coming = self._coming.pop(path, None) or self._shelf.on_the_way(outputs)
        self._after[self._last] = path
        self._last = path
        following = self._after.get(path, "")
        if following in self._waiting and following not in self._coming:
            self._coming[following] = self._shelf.on_the_way(self._waiting[following])
        return mapped(Narrowed.widened, Narrowed, coming.arrived())
