"""Arithmetic on whole outputs of a denoiser: combining them, and dividing and joining their batch.

An output is any structure that torch's pytrees know: a tensor, tuples, lists and dictionaries, an
output class of diffusers. Floating tensors take part; everything else is taken from the newest
output. Nothing is changed in place, and no result shares memory with its arguments.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from smoothcache_core._errors import AttachError, ScheduleError
from smoothcache_core._sites import Guidance
from smoothcache_core._tensors import nbytes, weighted, widened

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
        return Flat(tuple(map(_copied, self.leaves)), self.spec)

    def whole(self) -> Any:
        """Return what it was made of."""
        return tree_unflatten(self.leaves, self.spec)

    def with_floating(self, tensors: Sequence[Tensor]) -> Any:
        """Return an output of this structure with other floating tensors, the rest copied."""
        given = iter(tensors)
        leaves = [next(given) if _is_floating(leaf) else _copied(leaf) for leaf in self.leaves]
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


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


# ---------------------------------------------------------------------------- halves of a batch


def narrow(arguments: Any, latent: Any, order: Guidance) -> Any:
    """Return arguments of the denoiser with the conditional half of the batch only.

    Every tensor with as many rows as the latent, and every list of as many tensors, is narrowed, in
    nested tuples, lists and dictionaries too. The outermost level is not taken for such a list.

    Args:
        arguments: A tuple or a dictionary of arguments.
        latent: The latent among them: a tensor, or a list of one tensor per row.
        order: Which half is conditional.

    Raises:
        ScheduleError: The batch has an odd number of rows.
    """
    rows = paired_rows(latent)
    start = 0 if order == "cond-first" else rows // 2
    half = _Half(rows, slice(start, start + rows // 2), listed=not isinstance(latent, Tensor))
    if isinstance(arguments, dict):
        return {key: half.of(value) for key, value in arguments.items()}
    return tuple(half.of(value) for value in arguments)


def paired_rows(latent: Any) -> int:
    """Return the rows of a latent: those of a tensor, or the tensors of a list.

    Raises:
        ScheduleError: They are not an even number.
    """
    rows = len(latent) if not isinstance(latent, Tensor) or latent.dim() else 0
    if rows % 2 or not rows:
        raise ScheduleError(
            f"guidance is batched, but this batch has {rows} rows: there are no two halves of it"
        )
    return rows


@dataclass(frozen=True)
class _Half:
    rows: int
    part: slice
    listed: bool

    def of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[self.part] if value.dim() and len(value) == self.rows else value
        if isinstance(value, dict):
            narrowed = copy.copy(value)
            narrowed.update({key: self.of(item) for key, item in value.items()})
            return narrowed
        if not isinstance(value, list | tuple):
            return value
        if self._is_batch(value):
            return value[self.part]
        items = map(self.of, value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)

    def _is_batch(self, value: Sequence[Any]) -> bool:
        """Whether the items of `value` are rows, rather than batches themselves.

        A tuple is none: rotary embeddings are tuples of two tensors, as many as rows, often.
        """
        if not isinstance(value, list) or len(value) != self.rows:
            return False
        if not all(isinstance(item, Tensor) for item in value):
            return False
        return self.listed or not all(item.dim() and len(item) == self.rows for item in value)


def difference(conditional: Sequence[Tensor], unconditional: Sequence[Tensor]) -> list[Tensor]:
    """Return the guidance difference, tensor by tensor."""
    pairs = zip(conditional, unconditional, strict=True)
    return [one.detach() - other.detach() for one, other in pairs]


def halves(output: Flat, rows: int, order: Guidance) -> tuple[list[Tensor], list[Tensor]]:
    """Return the floating tensors of (the conditional half, the unconditional half).

    Args:
        output: The denoiser's output for the whole batch: tensors of `rows` rows, or a list of
            `rows` tensors.
        rows: Rows of the batch.
        order: Which half is conditional.

    Raises:
        ScheduleError: The output has other rows.
    """
    tensors, middle = list(output.floating), rows // 2
    if all(tensor.dim() and len(tensor) == rows for tensor in tensors):
        first = [tensor[:middle] for tensor in tensors]
        second = [tensor[middle:] for tensor in tensors]
    elif len(tensors) == rows:
        first, second = tensors[:middle], tensors[middle:]
    else:
        raise ScheduleError(
            f"the denoiser's output of shapes {[tuple(each.shape) for each in tensors]} cannot be "
            f"divided like its batch of {rows} rows"
        )
    return (first, second) if order == "cond-first" else (second, first)


def unguided(
    conditional: Sequence[Tensor], differences: Sequence[Sequence[Tensor]], weights: Weights
) -> list[Tensor]:
    """Return conditional - sum_j weights[j] * differences[j], tensor by tensor.

    Args:
        conditional: Floating tensors of the conditional output.
        differences: Guidance differences, the newest first.
        weights: As many coefficients.
    """
    signed = [1.0, *(-weight for weight in weights)]
    return [weighted(column, signed) for column in zip(conditional, *differences, strict=True)]


def widen(
    conditional: Flat, unconditional: Sequence[Tensor], spec: TreeSpec, order: Guidance
) -> Any:
    """Return the output for the whole batch, joined from its halves.

    Args:
        conditional: The output for the conditional half.
        unconditional: The floating tensors of the other half.
        spec: Structure of an output for the whole batch.
        order: Which half is conditional.
    """
    pair: tuple[Sequence[Tensor], Sequence[Tensor]] = conditional.floating, unconditional
    first, second = pair if order == "cond-first" else pair[::-1]
    if spec == conditional.spec:
        joined = [torch.cat(both) for both in zip(first, second, strict=True)]
        return conditional.with_floating(joined)
    return tree_unflatten([_copied(tensor) for tensor in (*first, *second)], spec)
