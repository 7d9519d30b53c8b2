"""Several latents that a denoiser is given in one call, taken as one.

A model of videos with sound is given the latent of either, gives an output for either, and its
solver steps through both at once. Joined row by row they are one vector, which a solver changes
like any other latent; so whoever looks at latents sees (rows, n), and only what goes into the
model, or comes out of it, has the several tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcache_core.errors import CalibrationError


@dataclass(frozen=True)
class Latents:
    """The latents of one call.

    Attributes:
        tensors: Each (rows, ...), in the order of the outputs that answer them.
    """

    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return how many rows they have; 0 if they differ in that, or have none."""
        counts = {len(each) if each.dim() else 0 for each in self.tensors}
        return counts.pop() if len(counts) == 1 else 0

    def __iter__(self) -> Iterator[Tensor]:
        """Yield them in their order."""
        return iter(self.tensors)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Their shapes."""
        return tuple(tuple(each.shape) for each in self.tensors)

    def joined(self) -> Tensor:
        """Return all as one tensor, (rows, n).

        Raises:
            CalibrationError: They have not the same number of rows.
        """
        if not len(self):
            raise CalibrationError(
                f"the latents of one call must have as many rows, got shapes {list(self.shapes)}"
            )
        return joined(self.tensors)

    def divided(self, rows: Tensor) -> "Latents":
        """Return what `joined` gives, (rows, n), as latents of these shapes.

        Args:
            rows: As many rows of as many entries.
        """
        return Latents(tuple(divided(rows, self.tensors)))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors (rows, ...) as one, (rows, n)."""
    return torch.cat([each.flatten(1) for each in tensors], dim=1)


def divided(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of a joined tensor, (rows, n), in the shapes that they had.

    Args:
        rows: What `joined` gave, changed or not.
        like: Tensors of these shapes.
    """
    parts = rows.split([each[0].numel() for each in like], dim=1)
    return [part.reshape(each.shape) for part, each in zip(parts, like, strict=True)]


def are_joined(tensors: Sequence[Tensor], latent: Tensor) -> bool:
    """Return whether outputs answer a latent that is several ones joined.

    Args:
        tensors: The floating tensors of an output.
        latent: What the denoiser was given, (rows, ...).
    """
    if len(tensors) < 2 or latent.dim() != 2:
        return False
    alike = all(each.dim() > 1 and len(each) == len(latent) for each in tensors)
    return alike and sum(each[0].numel() for each in tensors) == latent.shape[1]
