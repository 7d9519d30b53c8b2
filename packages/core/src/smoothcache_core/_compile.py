"""How many graphs `torch.compile` makes of a cached model."""

from collections.abc import Sequence

import torch
from torch import nn

from smoothcache_core._sites import Site
from smoothcache_core._wrap import denoiser


def graph_variants(model: nn.Module, sites: Sequence[Site], modes: Sequence[Sequence[int]]) -> int:
    """Return how many graphs one piece of compiled code may need.

    Compiled as a whole, a model needs one graph for each distinct row of modes, and one without the
    cache. Compiled block by block, blocks of one class share their graphs, and need one for each
    distinct tuple of modes of the sites of one block, and one without the cache; twice as many,
    since the input of the first block is often laid out otherwise than that of the next.

    Args:
        model: The denoiser, compiled or not.
        sites: The sites that are wrapped.
        modes: Mode of every site (inner) at every evaluation (outer).

    Returns:
        The number of graphs, 0 if nothing is compiled.
    """
    inside = denoiser(model)
    if inside is not model or _compiled(inside):
        return len({tuple(row) for row in modes}) + 1
    tuples: dict[type, set[tuple[int, ...]]] = {}
    for path, indices in _blocks(sites).items():
        block = inside.get_submodule(path)
        if _compiled(block):
            seen = tuples.setdefault(type(block), set())
            seen.update(tuple(row[index] for index in indices) for row in modes)
    return max((2 * (len(seen) + 1) for seen in tuples.values()), default=0)


def recompile_limit() -> int:
    """Return after how many graphs of one piece of code torch gives up (8 by default)."""
    config = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    if hasattr(config, "recompile_limit"):
        return config.recompile_limit
    return config.cache_size_limit  # its name in torch 2.6


def _compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _blocks(sites: Sequence[Site]) -> dict[str, list[int]]:
    """Return the indices of the sites of each block, by the path of the block."""
    blocks: dict[str, list[int]] = {}
    for index, site in enumerate(sites):
        blocks.setdefault(site.path.rpartition(".")[0], []).append(index)
    return blocks
