"""Arithmetic on whole outputs of a denoiser: combining them, and dividing and joining their batch.

An output is any structure that torch's pytrees know: a tensor, tuples, lists and dictionaries, an
output class of diffusers. Floating tensors take part; everything else is taken from the newest
output. Nothing is changed in place, and no result shares memory with its arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from smoothcache_core.errors import AttachError, CalibrationError, ScheduleError
from smoothcache_core.outputs.tensors import nbytes, weighted, widened

Weights = Sequence[float] | Tensor
"""Coefficients, the newest output's first: numbers, or a tensor (terms,)."""


@dataclass(frozen=True)
class Flat:
    """An output taken apart.

    Attributes:
        leaves: Its tensors and whatever else it holds, in order.
        spec: Its structure.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @property
    def floating(self) -> tuple[Tensor, ...]:
        """The floating tensors among the leaves."""
        return tuple(leaf for leaf in self.leaves if _is_floating(leaf))

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(nbytes(leaf) for leaf in self.leaves if isinstance(leaf, Tensor))

    def copied(self) -> "Flat":
        """Return a copy that nobody else can change and that holds no graph."""
        return Flat(tuple(map(copied, self.leaves)), self.spec)

    def whole(self) -> Any:
        """Return what it was made of."""
        return tree_unflatten(self.leaves, self.spec)

    def with_floating(self, tensors: Sequence[Tensor]) -> Any:
        """Return an output of this structure with other floating tensors, the rest copied."""
        given = iter(tensors)
        leaves = [next(given) if _is_floating(leaf) else copied(leaf) for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)


def flatten(output: Any) -> Flat:
    """Take an output apart.

    Raises:
        AttachError: It holds no floating tensor.
    """
    leaves, spec = tree_flatten(output)
    if not any(map(_is_floating, leaves)):
        raise AttachError(
            f"the denoiser gives a {type(output).__name__} in which there is no floating-point "
            "tensor; only an output of tensors can be cached"
        )
    return Flat(tuple(leaves), spec)


def blend(outputs: Sequence[Any], weights: Weights) -> Any:
    """Return sum_j weights[j] * outputs[j], added up in float32 or wider.

    Args:
        outputs: Outputs of one structure, the newest first.
        weights: As many coefficients.
    """
    return answer(outputs, weights)


def answer(
    outputs: Sequence[Any], weights: Weights, latents: Sequence[tuple[Any, float]] = ()
) -> Any:
    """Return sum_j weights[j] * outputs[j] + sum_k c_k * latent_k, in float32 or wider.

    Args:
        outputs: Outputs of one structure, the newest first.
        weights: As many coefficients.
        latents: Pairs of a latent and its coefficient c_k. A latent is a tensor like the first
            floating tensor of the outputs, which may have more channels (dimension 1): the first
            ones are meant. Or it is one tensor for each floating tensor.

    Raises:
        AttachError: An output holds no floating tensor.
        ScheduleError: The latent does not match the outputs.
    """
    flats = [output if isinstance(output, Flat) else flatten(output) for output in outputs]
    columns = list(zip(*(flat.floating for flat in flats), strict=True))
    if not latents:
        return flats[0].with_floating([weighted(column, weights) for column in columns])
    totals = [widened(column, weights) for column in columns]
    for latent, coefficient in latents:
        for total, own in zip(totals, _matching(latent, totals), strict=True):
            if own is not None:
                _first_channels(total, own).add_(own.to(total) * coefficient)
    pairs = zip(totals, columns, strict=True)
    return flats[0].with_floating([total.to(column[0].dtype) for total, column in pairs])


def _matching(latent: Any, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Return which latent belongs to which tensor."""
    own = [latent] if isinstance(latent, Tensor) else [*(latent or ())]
    if isinstance(latent, Tensor):
        pairs = [(tensors[0], latent)]
    else:
        pairs = list(zip(tensors, own, strict=False))
    fits = all(_narrowed_shape(tensor, one) == one.shape for tensor, one in pairs)
    if not pairs or not fits or len(pairs) != len(own):
        raise ScheduleError(
            f"a latent of shapes {[tuple(each.shape) for each in own]} does not match the "
            f"denoiser's output of shapes {[tuple(each.shape) for each in tensors]}, so it cannot "
            "take part in a fill; plan without inputs"
        )
    return [*own, *[None] * (len(tensors) - len(own))]


def _narrowed_shape(tensor: Tensor, like: Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    if tensor.dim() == like.dim() > 1 and shape[1] > like.shape[1]:
        return shape[0], like.shape[1], *shape[2:]
    return shape


def _first_channels(total: Tensor, like: Tensor) -> Tensor:
    """Return the view of `total` to which a latent is added."""
    return total if total.shape == like.shape else total.narrow(1, 0, like.shape[1])


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def copied(leaf: Any) -> Any:
    """Return a copy of a tensor that shares no memory with it; anything else as it is."""
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


@dataclass(frozen=True)
class Answer:
    """A copy of one output of the denoiser, in the structure in which it gave it."""

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, output: Any) -> "Answer":
        """Copy an output."""
        leaves, spec = tree_flatten(output)
        return cls(tuple(_copy(leaf) for leaf in leaves), spec)

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def output(self) -> Any:
        """Return a fresh output."""
        return tree_unflatten([_copy(leaf) for leaf in self.leaves], self.spec)

    def plus(self, change: Tensor) -> "Answer":
        """Return the answer with `change`, shaped like the latent, added to its first channels."""
        leaves = list(self.leaves)
        places = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]
        if leaves[places[0]].dim() == change.dim():
            leaf = leaves[places[0]] = leaves[places[0]].clone()
            leaf.narrow(1, 0, change.shape[1]).add_(change.to(leaf))
        else:
            for place, row in zip(places, change, strict=True):
                leaves[place] = leaves[place] + row.to(leaves[place])
        return Answer(tuple(leaves), self.spec)

    def signal(self, latent: Tensor) -> Tensor:
        """Return what the solver uses of the answer, in the shape of `latent`, (rows, ...).

        Models that also predict a variance give more channels than they take.

        Raises:
            CalibrationError: The output is not like the latent.
        """
        tensors = [leaf for leaf in self.leaves if _is_floating(leaf)]
        if not tensors:
            raise CalibrationError("the denoiser's output holds no floating-point tensor")
        first = tensors[0] if tensors[0].dim() == latent.dim() else torch.stack(tensors)
        if first.dim() > 2 and first.shape[1] > latent.shape[1]:
            first = first.narrow(1, 0, latent.shape[1])
        if first.shape != latent.shape:
            raise CalibrationError(
                f"the denoiser's output of shape {tuple(first.shape)} is not like its latent of "
                f"shape {tuple(latent.shape)}; plan for sites instead of the denoiser"
            )
        return first


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
