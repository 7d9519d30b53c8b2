"""Whole outputs of a denoiser: taken apart, copied, changed and combined.

An output is any structure that torch's pytrees know: a tensor, tuples, lists and dictionaries, an
output class of diffusers. Floating tensors take part; everything else is taken from the newest
output. Nothing is changed in place, and no result shares memory with its arguments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.errors import AttachError, CalibrationError, ScheduleError
from smoothcache_core.outputs.latents import Latents, are_joined, divided, joined
from smoothcache_core.outputs.tensors import cloned, nbytes, weighted, widened

Weights = Sequence[float] | Tensor
"""Coefficients, the newest output's first: numbers, or a tensor (terms,)."""


@dataclass(frozen=True)
class Structure:
    """One output of a denoiser, taken apart.

    Attributes:
        leaves: Its tensors and whatever else it holds, in order.
        spec: How they are nested.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, output: Any) -> "Structure":
        """Take an output apart; its tensors stay those of the output."""
        leaves, spec = tree_flatten(output)
        return cls(tuple(leaves), spec)

    @property
    def floating(self) -> tuple[Tensor, ...]:
        """The floating tensors among the leaves."""
        return tuple(filter(is_floating, self.leaves))

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(nbytes(leaf) for leaf in self.leaves if isinstance(leaf, Tensor))

    def copied(self, *, graph: bool = False) -> "Structure":
        """Return a copy that shares no memory with anything.

        Args:
            graph: Whether gradients flow through the copy.
        """
        copy = _with_graph if graph else _copied
        return Structure(tuple(map(copy, self.leaves)), self.spec)

    def output(self) -> Any:
        """Return an output of these very leaves."""
        return tree_unflatten(self.leaves, self.spec)

    def with_floating(self, tensors: Iterable[Tensor]) -> "Structure":
        """Return this structure with other floating tensors, in order, and copies of the rest."""
        given = iter(tensors)
        leaves = [next(given) if is_floating(leaf) else _copied(leaf) for leaf in self.leaves]
        return Structure(tuple(leaves), self.spec)

    def plus(self, change: Tensor, latent: Tensor, part: LatentPart | None = None) -> "Structure":
        """Return it with a change of what the solver uses added.

        Args:
            change: Of the shape of `signal`.
            latent: The latent that the output answers, (rows, ...).
            part: What of the latent is denoised; None for all of it.
        """
        first, *others = self.floating
        if are_joined(self.floating, latent):
            total = joined(self.floating)
            _answering(total, latent, part).add_(change.to(total))
            return self.with_floating(divided(total, self.floating))
        listed = first.dim() != latent.dim()
        total = torch.stack(self.floating) if listed else first.clone()
        _answering(total, latent, part).add_(change.to(total))
        return self.with_floating(total if listed else [total, *others])

    def signal(self, latent: Tensor, part: LatentPart | None = None) -> Tensor:
        """Return what the solver uses of the output, in the shape of what is denoised, (rows, ...).

        Args:
            latent: The latent that the output answers, (rows, ...).
            part: What of it is denoised; None for all of it. The output is of that part, or of all.

        Raises:
            CalibrationError: The output is not like the latent.
        """
        tensors = self.floating
        if not tensors:
            raise CalibrationError("the denoiser's output holds no floating-point tensor")
        first = self.rows(latent)
        found, own = _answering(first, latent, part), denoised(latent, part)
        if found.shape != own.shape:
            raise CalibrationError(
                f"the denoiser's output of shape {tuple(first.shape)} is not like "
                f"{_named(part)} of shape {tuple(own.shape)}; plan for sites instead of the "
                "denoiser"
            )
        return found

    def rows(self, latent: Tensor) -> Tensor:
        """Return the first floating tensor, (rows, ...), or those of all rows or latents as one.

        Args:
            latent: The latent that the output answers, (rows, ...).
        """
        tensors = self.floating
        if are_joined(tensors, latent):
            return joined(tensors)
        if tensors[0].dim() == latent.dim() or len({each.shape for each in tensors}) > 1:
            return tensors[0]
        return torch.stack(tensors)


def flatten(output: Any) -> Structure:
    """Take an output apart that is to be cached.

    Raises:
        AttachError: It holds no floating tensor.
    """
    structure = Structure.of(output)
    if not structure.floating:
        raise AttachError(
            f"the denoiser gives a {type(output).__name__} in which there is no floating-point "
            "tensor; only an output of tensors can be cached"
        )
    return structure


def is_floating(leaf: Any) -> bool:
    """Return whether `leaf` is a tensor of floating point."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def denoised(latent: Tensor, part: LatentPart | None) -> Tensor:
    """Return the view of what is denoised of a latent.

    Args:
        latent: (rows, ...); the part fits it.
        part: What is denoised; None for all of it.
    """
    if part is None:
        return latent
    stop = latent.shape[part.dim] if part.stop is None else part.stop
    return latent.narrow(part.dim, part.start, stop - part.start)


def _answering(output: Tensor, latent: Tensor, part: LatentPart | None) -> Tensor:
    """Return the view of what an output answers to the denoised part of a latent, (rows, ...)."""
    own = denoised(latent, part)
    alike = output.dim() == latent.dim()
    if part is not None and alike and output.shape[part.dim] == latent.shape[part.dim]:
        output = denoised(output, part)
    return latent_channels(output, own)


def _named(part: LatentPart | None) -> str:
    return "its latent" if part is None else f"the denoised part of its latent, {part},"


def like_output(latent: Any, output: Structure, part: LatentPart | None) -> Any:
    """Return the latent; where an output is only of its denoised part, that part of it.

    Args:
        latent: A tensor (rows, ...), one tensor for each row, or several latents, whose outputs are
            of all of each.
        output: An output of the denoiser.
        part: What of the latent is denoised; None for all of it.
    """
    if isinstance(latent, Latents):
        return list(latent.tensors)
    if part is None:
        return latent
    if not isinstance(latent, Tensor):
        pairs = zip(latent, output.floating, strict=False)
        return [_like(each, own, part, part.dim - 1) for each, own in pairs]
    return _like(latent, output.floating[0], part, part.dim)


def _like(latent: Tensor, output: Tensor, part: LatentPart, dim: int) -> Tensor:
    if latent.dim() <= dim or output.dim() != latent.dim():
        return latent
    size, length = latent.shape[dim], output.shape[dim]
    if part.stop is not None and part.dim == 1 and length != size:
        length = min(length, part.stop - part.start)  # further channels are variances
    start = size - length if part.stop is None else part.start
    return latent.narrow(dim, start, length) if 0 < length < size - start + 1 else latent


def latent_channels(tensor: Tensor, latent: Tensor) -> Tensor:
    """Return the view of those channels (dimension 1) of a tensor that the latent has too.

    Models that also predict a variance give more channels than they take; the first ones count.

    Args:
        tensor: (rows, channels, ...); of one dimension it has no channels.
        latent: (rows, channels, ...).
    """
    if tensor.dim() == latent.dim() > 1 and tensor.shape[1] > latent.shape[1]:
        return tensor.narrow(1, 0, latent.shape[1])
    return tensor


def rows_of(latent: Any) -> Tensor:
    """Return the latent as one tensor, (rows, ...).

    Raises:
        CalibrationError: It is a list of tensors of several shapes, or holds none; or several
            latents have not as many rows.
    """
    if isinstance(latent, Tensor):
        return latent
    if isinstance(latent, Latents):
        return latent.joined()
    rows = [row for row in latent or () if isinstance(row, Tensor)]
    shapes = sorted({tuple(row.shape) for row in rows})
    if len(shapes) != 1:
        raise CalibrationError(f"the latents of a batch must be of one shape, got {shapes}")
    return torch.stack(rows)


def _copied(leaf: Any) -> Any:
    return cloned(leaf) if isinstance(leaf, Tensor) else leaf


def _with_graph(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def answer(
    outputs: Sequence[Any], weights: Weights, latents: Sequence[tuple[Any, float]] = ()
) -> Any:
    """Return sum_j weights[j] * outputs[j] + sum_k c_k * latent_k, in float32 or wider.

    Args:
        outputs: Outputs of one structure, the newest first.
        weights: The coefficient of each output, (len(outputs),).
        latents: Pairs of a latent and its coefficient c_k. A latent is a tensor like the first
            floating tensor of the outputs, which may have more channels (dimension 1): the first
            ones are meant. Or it is one tensor for each floating tensor.

    Raises:
        AttachError: An output holds no floating tensor.
        ScheduleError: The latent does not match the outputs.
    """
    flats = [each if isinstance(each, Structure) else flatten(each) for each in outputs]
    columns = list(zip(*(flat.floating for flat in flats), strict=True))
    if not latents:
        tensors = [weighted(column, weights) for column in columns]
        return flats[0].with_floating(tensors).output()
    totals = [widened(column, weights) for column in columns]
    for latent, coefficient in latents:
        for share, own in _shares(latent, totals):
            share.add_(own.to(share) * coefficient)
    pairs = zip(totals, columns, strict=True)
    narrowed = [total.to(column[0].dtype) for total, column in pairs]
    return flats[0].with_floating(narrowed).output()


def _shares(latent: Any, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return pairs: the view of a tensor that a latent belongs to, and that latent."""
    own = [latent] if isinstance(latent, Tensor) else [*(latent or ())]
    pairs = [(latent_channels(each, one), one) for each, one in zip(tensors, own, strict=False)]
    if not pairs or len(pairs) != len(own) or any(a.shape != b.shape for a, b in pairs):
        raise ScheduleError(
            f"a latent of shapes {[tuple(each.shape) for each in own]} does not match the "
            f"denoiser's output of shapes {[tuple(each.shape) for each in tensors]}, so it cannot "
            "take part in a fill; plan without inputs"
        )
    return pairs
