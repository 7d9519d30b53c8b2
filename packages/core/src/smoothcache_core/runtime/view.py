"""What a run is looked at by: the denoised part of its latents, and what outputs say of it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure, denoised, rows_of
from smoothcache_core.schedule.fingerprint import Fingerprint


class View:
    """Shows what is denoised of one call after the other.

    Args:
        planned: What the schedule was planned for.

    Attributes:
        latent: What is denoised of the call's latent, (rows, ...), or all of it where that cannot
            be told; None if its numbers cannot be looked at.
        is_sure: Whether that is what the schedule was planned for.
    """

    def __init__(self, planned: Fingerprint) -> None:
        self._part, self._planned = planned.latent_part, planned.latent_shape or ()
        self.forget()

    def see(self, latent: Any) -> None:
        """Look at the latent argument of a call."""
        self._rows = _rows(latent)
        self.latent, self.is_sure = self._rows, self._part is None
        if self._part is not None and self._rows is not None and self._fits(self._rows, self._part):
            self.latent, self.is_sure = denoised(self._rows, self._part), True

    def _fits(self, rows: Tensor, part: LatentPart) -> bool:
        """Whether the part is where it was: of a picture of another size it may be elsewhere."""
        shape: Sequence[int] = rows.shape[1:]
        at = slice(part.dim - 1, part.dim)
        return len(shape) == len(self._planned) and shape[at] == self._planned[at]

    def signal(self, output: object) -> Tensor | None:
        """Return what of an output of the call is like what is denoised; None if nothing is."""
        if self._rows is None:
            return None
        try:
            return Structure.of(output).signal(self._rows, self._part).detach()
        except CalibrationError:
            return None  # a denoiser may give something else than what its solver steps by

    def forget(self) -> None:
        """The call is over."""
        self._rows: Tensor | None = None
        self.latent: Tensor | None = None
        self.is_sure = False


def _rows(latent: Any) -> Tensor | None:
    """Return the latent as one tensor, (rows, ...); None if its numbers cannot be looked at.

    There are none on the meta device, and in tensors of other classes (fake, sharded) not all.
    """
    try:
        rows = rows_of(latent)
    except CalibrationError:
        return None
    plain = type(rows) is Tensor and not rows.is_meta
    return rows if plain and rows.is_floating_point() and rows.dim() else None
