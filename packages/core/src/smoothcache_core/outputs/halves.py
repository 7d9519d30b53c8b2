"""The conditional and the unconditional half of a guided batch: divided, joined, subtracted.

Guidance batches the rows of both passes: (2 B, ...), B conditional ones and B unconditional ones,
in an order that the adapter knows.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_leaves

from smoothcache_core.adapters.sites import Guidance
from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.latents import Latents
from smoothcache_core.outputs.structures import Structure, Weights
from smoothcache_core.outputs.tensors import weighted

# ---------------------------------------------------------------------------- halves of a batch


def narrow(arguments: Any, latent: Any, order: Guidance) -> Any:
    """Return arguments of the denoiser with the conditional half of the batch only.

    Every tensor with as many rows as the latent, and every list of as many tensors, is narrowed, in
    nested tuples, lists and dictionaries too. The outermost level is not taken for such a list. Of
    conditions of every frame of a video there are several rows for each of the latent's.

    Args:
        arguments: A tuple or a dictionary of arguments.
        latent: The latent among them: a tensor, a list of one tensor per row, or several latents.
        order: Which half is conditional.

    Raises:
        ScheduleError: The batch has an odd number of rows.
    """
    rows = paired_rows(latent)
    start = 0 if order == "cond-first" else rows // 2
    half = _Half(
        rows, slice(start, start + rows // 2), listed=not isinstance(latent, Tensor | Latents)
    )
    if isinstance(arguments, dict):
        return {key: half.named(key, value) for key, value in arguments.items()}
    return tuple(half.of(value) for value in arguments)


def paired_rows(latent: Any) -> int:
    """Return the rows of a latent: those of a tensor, or the tensors of a list.

    Raises:
        ScheduleError: They are not an even number.
    """
    rows = _rows(latent)
    if not is_even(latent):
        raise ScheduleError(
            f"guidance is batched, but this batch has {rows} rows: there are no two halves of it"
        )
    return rows


def is_even(latent: Any) -> bool:
    """Return whether a latent has an even number of rows, so that there are two halves of it."""
    rows = _rows(latent)
    return rows > 0 and rows % 2 == 0


def _rows(latent: Any) -> int:
    return len(latent) if not isinstance(latent, Tensor) or latent.dim() else 0


_CONDITIONS = ("encoder_hidden_states",)
"""Arguments that diffusers' models take row by row, or once for each frame of every row: their
rows are never anything else, as those of positions are."""


_POSITIONS = ("image_rotary_emb",)
"""Arguments of positions by the name that diffusers' pipelines give them: tables of (positions,
channels) and indices into them, which a batch shares. A video of two frames is no batch of two."""


@dataclass(frozen=True)
class _Half:
    """One half of a batch.

    Attributes:
        rows: Rows of the whole batch.
        part: Which of them belong to the half.
        listed: Whether the latent is a list of one tensor per row.
    """

    rows: int
    part: slice
    listed: bool

    def named(self, name: str, value: Any) -> Any:
        """Return an argument of a name for this half."""
        if name in _CONDITIONS and isinstance(value, Tensor) and value.dim():
            each, rest = divmod(len(value), self.rows)
            if each > 1 and not rest:
                return value[self.part.start * each : self.part.stop * each]
        if name in _POSITIONS and all(each.dim() < 3 for each in _tensors(value)):
            return value
        return self.of(value)

    def of(self, value: Any) -> Any:
        """Return an argument of the denoiser for this half."""
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


def _tensors(value: Any) -> list[Tensor]:
    """Return all tensors in a value, however they are nested."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def difference(
    conditional: Sequence[Tensor], unconditional: Sequence[Tensor], *, graph: bool = False
) -> list[Tensor]:
    """Return conditional minus unconditional output, tensor by tensor.

    Args:
        conditional: Floating tensors of the conditional output.
        unconditional: Those of the other, as many and of the same shapes.
        graph: Whether gradients flow through the difference.
    """
    differences = [one - other for one, other in zip(conditional, unconditional, strict=True)]
    return differences if graph else [each.detach() for each in differences]


def halves(output: Structure, rows: int, order: Guidance) -> tuple[list[Tensor], list[Tensor]]:
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
        differences: Guidance differences of earlier evaluations, the newest first; each has one
            tensor for each of `conditional`.
        weights: The coefficient of each difference, (len(differences),).
    """
    signed = [1.0, *(-weight for weight in weights)]
    return [weighted(column, signed) for column in zip(conditional, *differences, strict=True)]


def widen(
    conditional: Structure, unconditional: Sequence[Tensor], spec: TreeSpec, order: Guidance
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
        return conditional.with_floating(joined).output()
    return Structure((*first, *second), spec).copied().output()
