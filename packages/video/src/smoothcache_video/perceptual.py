"""LPIPS of clips, as torchmetrics has it, for who has the weights of its network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from smoothcache_core.errors import EvaluationError
from smoothcache_core.pipelines.loading import first_line
from torch import Tensor

Network = Literal["alex", "vgg", "squeeze"]

_FRAMES = 16  # frames that the network sees at once: more take memory and no less time


@dataclass(frozen=True, kw_only=True)
class Lpips:
    """The learned perceptual distance of pictures (arXiv 1801.03924); `load_lpips` loads it.

    Attributes:
        model: Gives the distances of two batches of pictures, (n, 3, h, w) in [0, 1], one value
            for each.
        device: Where it computes.
    """

    model: Callable[[Tensor, Tensor], Tensor]
    device: str = "cpu"

    @torch.no_grad()
    def __call__(self, reference: Tensor, candidate: Tensor) -> Tensor:
        """Return the distance of every clip: the mean of its frames'.

        Args:
            reference: Clips of the plain run, (n, frames, 3, height, width) in [0, 1].
            candidate: What they became, same shape.

        Returns:
            (n,) float64, at least 0: 0 where both are the same.
        """
        pairs = zip(reference, candidate, strict=True)
        return torch.stack([self._of_clip(one, other) for one, other in pairs])

    def _of_clip(self, one: Tensor, other: Tensor) -> Tensor:
        parts = zip(one.split(_FRAMES), other.split(_FRAMES), strict=True)
        found = [
            self.model(a.to(self.device), b.to(self.device)).reshape(-1).cpu().double()
            for a, b in parts
        ]
        return torch.cat(found).mean()


def load_lpips(network: Network = "alex", *, device: str = "cpu") -> Lpips:
    """Load LPIPS; torchvision downloads the weights of its network when it is loaded first.

    Args:
        network: What it compares the features of: `"alex"`, as its authors advise for comparing,
            `"vgg"` or `"squeeze"`.
        device: Where to compute, as torch names it.

    Raises:
        EvaluationError: The weights cannot be had.
    """
    from torchmetrics.functional.image.lpips import (
        _NoTrainLpips,  # pyright: ignore[reportPrivateUsage] the public one loads anew for each call
    )

    try:
        model: Any = _NoTrainLpips(net=network).to(device).requires_grad_(False)
    except (OSError, RuntimeError, ValueError) as error:
        raise EvaluationError(
            f"LPIPS needs the weights of torchvision's {network!r} network, which could not be "
            f"downloaded or loaded: {first_line(error)}"
        ) from error

    def distances(one: Tensor, other: Tensor) -> Tensor:
        return model(one.clamp(0, 1), other.clamp(0, 1), normalize=True)

    return Lpips(model=distances, device=device)
