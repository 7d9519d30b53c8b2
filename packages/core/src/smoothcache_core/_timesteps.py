"""Comparing the timesteps of a run with those of the calibration, without waiting for a device."""

from collections.abc import Sequence

from torch import Tensor

from smoothcache_core._calls import Call
from smoothcache_core._clock import Tick, same_timestep


class TimestepCheck:
    """Says where the timesteps of a run leave those that are expected.

    Args:
        expected: The timestep of every evaluation; None to compare nothing.
    """

    def __init__(self, expected: Sequence[float] | None) -> None:
        self._expected = expected
        self._on_device: list[Tensor] = []

    def restart(self) -> None:
        """A new run begins."""
        self._on_device = []

    def see(self, tick: Tick, call: Call) -> str:
        """Return how the timestep of a call differs; empty if it does not or cannot be seen yet."""
        if self._expected is None:
            return ""
        if call.timestep is not None:
            return self._difference(tick.evaluation, call.timestep)
        if call.tensor is not None and tick.evaluation == len(self._on_device):
            self._on_device.append(call.tensor.detach().reshape(-1)[0].clone())
        return ""

    def at_end(self) -> str:
        """Return how the timesteps that stayed on a device differ; for the end of a run."""
        if self._expected is None or len(self._on_device) != len(self._expected):
            return ""
        seen, self._on_device = self._on_device, []  # once, though every branch comes here
        differences = [self._difference(e, float(timestep)) for e, timestep in enumerate(seen)]
        return next(filter(None, differences), "")

    def _difference(self, evaluation: int, here: float) -> str:
        assert self._expected is not None
        there = self._expected[evaluation]
        if same_timestep(here, there):
            return ""
        return f"evaluation {evaluation}: {here:g}, calibrated {there:g}"
