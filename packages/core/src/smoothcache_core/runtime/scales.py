"""Scales and shifts of channels, where the device needs them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.parked import Parked
from smoothcache_core.schedule.schedule import Schedule


class Scales:
    """The numbers of a schedule's channels, staged once for each site, device and data type.

    Args:
        schedule: Says which sites have them, and at which evaluations.

    Raises:
        ScheduleError: The numbers were not read.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._given = None if schedule.channels is None else schedule.channels.known()
        self._rows = schedule.rows
        self._staged: dict[tuple[str, torch.device, torch.dtype], list[Tensor]] = {}

    def at(self, path: str, evaluation: int, like: Sequence[Tensor | Parked]) -> Sequence[Tensor]:
        """Return scales and shifts of what a site gives, (2, channels) for each tensor.

        Args:
            path: Path of the site.
            evaluation: One that is skipped.
            like: What was kept of one call, of the device, that decides between float32 and
                float64.

        Raises:
            ScheduleError: The site gives other tensors than those that the numbers are for.
        """
        wide = any(tensor.dtype == torch.float64 for tensor in like)
        place = path, like[0].device, torch.float64 if wide else torch.float32
        if place not in self._staged:
            self._staged[place] = self._moved(*place, like)
        skipped = self._rows[path][:evaluation].count(0)
        return [table[skipped] for table in self._staged[place]]

    def _moved(
        self, path: str, device: torch.device, dtype: torch.dtype, like: Sequence[Tensor | Parked]
    ) -> list[Tensor]:
        assert self._given is not None
        arrays = self._given.of_site[path]
        if [each.shape[-1] for each in arrays] != [each.shape[-1] for each in like]:
            raise ScheduleError(
                f"the schedule has scales and shifts for tensors of "
                f"{[each.shape[-1] for each in arrays]} channels of {path!r}, which gives some of "
                f"shapes {[tuple(each.shape) for each in like]}"
            )
        with torch.inference_mode(False):  # they are used in every mode
            return [
                torch.tensor(each, dtype=dtype).to(device, non_blocking=True) for each in arrays
            ]
