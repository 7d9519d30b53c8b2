"""Which part of a denoiser's latent argument is denoised, where the rest of it is a condition."""

from collections.abc import Sequence
from dataclasses import dataclass

from smoothcache_core.errors import AdapterError


@dataclass(frozen=True, kw_only=True)
class LatentPart:
    """A slice of one dimension of the latent argument: what the solver changes.

    Example:
        The first 4 of 9 channels, as inpainting denoisers of Stable Diffusion have it:

        >>> LatentPart(dim=1, start=0, stop=4).of((9, 64, 64))
        (4, 64, 64)

    Attributes:
        dim: Dimension of the latent argument, at least 1; 0 are the rows of the batch.
        start: First index along it, at least 0.
        stop: Index past the last; None for all from `start` on.

    Raises:
        AdapterError: There is no such slice.
    """

    dim: int
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        numbers = (self.dim, self.start, *([] if self.stop is None else [self.stop]))
        if not all(type(number) is int for number in numbers):
            raise AdapterError(f"a part of a latent is said by integers, got {self}")
        if self.dim < 1 or self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise AdapterError(
                "a part of a latent is a slice of dimension 1 or a later one, from `start` to "
                f"`stop`, got {self}"
            )

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a latent has such a part.

        Args:
            shape: Shape of the latent without its rows.
        """
        if len(shape) < self.dim:
            return False
        size = shape[self.dim - 1]
        return self.start < size and (self.stop is None or self.stop <= size)

    def of(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the part of a latent, both without their rows.

        Args:
            shape: Shape of a latent that it fits.
        """
        stop = shape[self.dim - 1] if self.stop is None else self.stop
        return (*shape[: self.dim - 1], stop - self.start, *shape[self.dim :])
