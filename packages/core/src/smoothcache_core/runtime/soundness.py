"""Whether fills keep the denoiser's output finite."""

import math

import torch
from torch import Tensor

from smoothcache_core.outputs.structures import Structure
from smoothcache_core.runtime.later import Later


class Soundness:
    """Notes the evaluations in which a fill made NaN or infinity of finite latents."""

    def __init__(self) -> None:
        self._asked: list[tuple[int, Later]] = []

    def see(self, evaluation: int, latent: Tensor, output: object) -> None:
        """Look at a filled evaluation: its latent, (rows, ...), and what the caller gets."""
        tensors = Structure.of(output).floating
        if not tensors:
            return
        given = latent.detach().sum(dtype=torch.float32)  # of float16, a sum would overflow
        made = torch.stack([tensor.detach().sum(dtype=torch.float32) for tensor in tensors]).sum()
        self._asked.append((evaluation, Later(torch.stack((given, made)))))

    def broken(self, *, wait: bool = False) -> int | None:
        """Return the first evaluation found out by now, None if there is none.

        Args:
            wait: Wait for the device where it is not done yet.
        """
        done = [each for each in self._asked if wait or each[1].is_there]
        self._asked = [each for each in self._asked if each not in done]
        for evaluation, sums in done:
            given, made = map(math.isfinite, sums.read())
            if given and not made:
                return evaluation
        return None
