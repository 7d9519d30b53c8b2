"""Copies of a model that cost no memory: of its modules, with the same weights or with none."""

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def sharing(model: Model) -> Model:
    """Return a copy of the modules that uses the same weights."""
    return _copied(model, lambda tensor: tensor)


def shapes_of(model: Model) -> Model:
    """Return a copy on the meta device: it computes shapes, and counts, in no time."""
    return _copied(model, lambda tensor: tensor.to("meta"))


def _copied(model: Model, tensor: Callable[[Tensor], Tensor]) -> Model:
    memo: dict[int, Tensor] = {}
    for original in (*model.parameters(), *model.buffers()):
        replaced = tensor(original.data)
        is_parameter = isinstance(original, nn.Parameter)
        memo[id(original)] = nn.Parameter(replaced, False) if is_parameter else replaced
    return copy.deepcopy(model, memo)
