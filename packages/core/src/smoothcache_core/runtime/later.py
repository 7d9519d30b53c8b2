"""Numbers that a device is still computing, for a host that does not wait for them."""

from typing import Any

import torch
from torch import Tensor


class Later:
    """A few numbers on their way to the host. On the CPU they are there at once.

    Args:
        numbers: (n,), of floating point, on any device.
    """

    def __init__(self, numbers: Tensor) -> None:
        device, numbers = numbers.device, numbers.detach()
        self._event: Any = None
        self._numbers = numbers
        if device.type == "cuda":  # other devices copy without pinned memory or events of their own
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    @property
    def is_there(self) -> bool:
        """Whether `read` would not wait."""
        if self._event is not None:
            return self._event.query()
        return self._numbers.device.type in ("cpu", "meta")

    def read(self) -> list[float]:
        """Return the numbers, (n,), waiting for the device if they are not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.tolist()
