"""Finding the adapter of a model among those of a package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn


def find_adapter(model: nn.Module, adapters: Iterable[PatternAdapter]) -> PatternAdapter:
    """Return the adapter of a denoiser, found by the name of its class or of a base class.

    Example:
        >>> find_adapter(model, [adapter]).name
        'toy'

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        adapters: Where to look, such as `smoothcache_image.ADAPTERS`; of two that name a class, the
            later one.

    Raises:
        AdapterError: No adapter is meant for a class of this name.
    """
    inside = denoiser(model)
    by_class = {name: adapter for adapter in adapters for name in adapter.classes}
    for base in type(inside).__mro__:
        if base.__name__ in by_class:
            return by_class[base.__name__]
    raise AdapterError(
        f"no adapter for {type(inside).__name__!r}; the known classes are {sorted(by_class)}. Give "
        "the denoiser that the sampler calls (`pipe.transformer`), or say where its sites are: "
        "PatternAdapter(name='my-dit', patterns=(SitePattern('blocks.*.attn', 'attn'),))"
    )
