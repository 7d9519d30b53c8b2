"""Finding out which part of the latent argument is denoised, from a recorded run."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure

_SAY = "say what is denoised, for example Sampler(..., part=LatentPart(dim=1, start=0, stop=4))"


def found_part(latents: Sequence[Tensor], answer: Structure) -> LatentPart | None:
    """Return the part of the latent argument that a run changes; None if that is all of it.

    A condition stays as it was in all evaluations. An output that is shorter than its latent along
    a dimension has as many indices there as are denoised.

    Args:
        latents: The latent arguments of a run, (rows, ...) each, of one shape.
        answer: An output of the denoiser.

    Raises:
        CalibrationError: It is not one slice, or not sure which.
    """
    if not answer.floating:
        return None
    shape, output = tuple(latents[0].shape), tuple(answer.rows(latents[0]).shape)
    if len(shape) != len(output):
        return None  # which is told where the output is read
    shorter = [dim for dim in range(1, len(shape)) if output[dim] < shape[dim]]
    changing = _changing(latents)
    if not changing and not shorter:
        return None
    told = ", ".join(f"{list(indices)} of dimension {dim}" for dim, indices in changing.items())
    known = f"the latent argument of shape {shape}, whose output has shape {output}, "
    known += f"changes in a run at the indices {told} only" if told else "changes everywhere"
    # where an output tells the dimension, what stays the same in others is found by the solver
    dims = shorter if len(shorter) == 1 and shorter[0] in changing else list(changing)
    if dims != (shorter or list(changing)[:1]):
        raise CalibrationError(f"{known}; {_SAY}")
    dim, indices = dims[0], changing[dims[0]]
    if dim in shorter and len(indices) != output[dim]:
        raise CalibrationError(f"{known}; {_SAY}")
    if indices[-1] - indices[0] >= len(indices):
        raise CalibrationError(f"{known}: what is denoised must be one slice of the latent")
    at_end = indices[-1] + 1 == shape[dim] and indices[0] > 0
    return LatentPart(dim=dim, start=indices[0], stop=None if at_end else indices[-1] + 1)


def _changing(latents: Sequence[Tensor]) -> dict[int, list[int]]:
    """Return the indices that change along a dimension, of dimensions where some others do not."""
    if len(latents) > 1 and bool((latents[0] != latents[1]).all()):
        return {}
    moved = torch.zeros_like(latents[0], dtype=torch.bool)
    for latent in latents[1:]:
        moved |= latent != latents[0]
    found = {dim: _indices(moved, dim) for dim in range(1, moved.dim())}
    return {dim: some for dim, some in found.items() if 0 < len(some) < moved.shape[dim]}


def _indices(moved: Tensor, dim: int) -> list[int]:
    """Return the indices along a dimension at which anything moved."""
    flat = moved.transpose(0, dim).reshape(moved.shape[dim], -1)
    return flat.any(dim=1).nonzero().flatten().tolist()


def passes_in(latent: Tensor, samples: int) -> int:
    """Return how often the batch of a call is repeated in it, as batched guidance does.

    Args:
        latent: What is denoised of the latent, (rows, ...).
        samples: Samples of the run.
    """
    rows = len(latent)
    repeated = rows // samples if rows % samples == 0 else 0
    for count in (repeated, 2):
        if count > 1 and rows % count == 0:
            first, *others = latent.chunk(count)
            if all(torch.equal(first, other) for other in others):
                return count
    return 1
