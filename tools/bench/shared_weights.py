"""Copies of a model that cost no memory: of its modules, with the same weights or with none."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def sharing(model: Model, *, keep: Sequence[nn.Module] = ()) -> Model:
    """Return a copy of the modules that uses the same weights.

    Args:
        model: What to copy.
        keep: Modules inside that both shall have.
    """
    return _copied(model, lambda tensor: tensor, keep)


def shapes_of(model: Model) -> Model:
    """Return a copy on the meta device: it computes shapes, and counts, in no time."""
    return _copied(model, lambda tensor: tensor.to("meta"))


def _copied(
    model: Model, tensor: Callable[[Tensor], Tensor], keep: Sequence[nn.Module] = ()
) -> Model:
    memo: dict[int, object] = {id(module): module for module in keep}
    for original in (*model.parameters(), *model.buffers()):
        replaced = tensor(original.data)
        is_parameter = isinstance(original, nn.Parameter)
        memo[id(original)] = nn.Parameter(replaced, False) if is_parameter else replaced
    return copy.deepcopy(model, memo)
