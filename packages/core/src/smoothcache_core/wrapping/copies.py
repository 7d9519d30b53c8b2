"""Copies and pickles of wrapped modules: what they would be without what is on them.

Both `copy.deepcopy` and `pickle` ask an object for its `__reduce_ex__`. A wrapped module answers
for the module below, so a copy computes with its own weights and has no cache.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from smoothcache_core.errors import AttachError
from smoothcache_core.patching import new_object

Reduced = tuple[Callable[..., Any], tuple[type, ...], dict[str, Any]]


def reduced(own: type, state: Mapping[str, Any]) -> Reduced:
    """Return what `__reduce_ex__` gives of a module of class `own` with these attributes."""
    return new_object, (own,), dict(state)


def without(module: nn.Module, prefix: str) -> dict[str, Any]:
    """Return the attributes of a module but for those whose names begin with `prefix`."""
    return {name: value for name, value in vars(module).items() if not name.startswith(prefix)}


def refuse_copy(runner: object, protocol: object) -> Any:
    """Stand in for `__reduce_ex__` where what is below cannot be copied by itself.

    Raises:
        AttachError: Always.
    """
    raise AttachError(
        "this model has a cache and hooks of another library on it, and cannot be copied or "
        "pickled so; detach the cache first"
    )
