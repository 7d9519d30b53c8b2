"""How many graphs `torch.compile` makes of a cached model."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Site
from smoothcache_core.relay import members_of
from smoothcache_core.schedule.timeline import COMPUTE, FILL, FILLED, REUSE, Timeline


def variants(site: Site, timeline: Timeline) -> dict[str, list[Hashable]]:
    """Return what compiled code sees of the modules of a site, by path, at every evaluation."""
    modes = timeline.modes
    seen = {path: [_of_others(mode, keeps=False) for mode in modes] for path in site.paths}
    seen[site.paths[-1]] = [_of_others(mode, keeps=True) for mode in modes]
    seen[site.path] = [(FILL, timeline.terms) if mode == FILL else mode for mode in modes]
    return seen


def _of_others(mode: int, *, keeps: bool) -> Hashable:
    """Return what a block of a span does that is not the first."""
    if mode in FILLED:
        return REUSE
    return mode if keeps else COMPUTE


def graph_variants(model: nn.Module, modules: Mapping[str, Sequence[Hashable]]) -> int:
    """Return how many graphs one piece of compiled code may need.

    Compiled as a whole, a model needs one graph for each distinct row of variants, and one without
    the cache. Compiled block by block, blocks of one class share their graphs, and need one for
    each distinct tuple of variants of the modules of one block, and one without the cache; twice as
    many, since the input of the first block is often laid out otherwise than that of the next.

    Args:
        model: The denoiser, compiled or not; of a `Relay` the member counts that needs most.
        modules: By the paths of the wrapped modules, the `variants` of each at every evaluation.

    Returns:
        The number of graphs, 0 if nothing is compiled.
    """
    return max(_variants_of_one(member, modules) for member in members_of(model))


def _variants_of_one(model: nn.Module, modules: Mapping[str, Sequence[Hashable]]) -> int:
    inside = denoiser(model)
    if inside is not model or _compiled(inside):
        return len(set(zip(*modules.values(), strict=True))) + 1
    tuples: dict[type, set[tuple[Hashable, ...]]] = {}
    for block, members in _compiled_blocks(inside, modules).items():
        seen = tuples.setdefault(type(inside.get_submodule(block)), set())
        seen.update(zip(*members, strict=True))
    return max((2 * (len(seen) + 1) for seen in tuples.values()), default=0)


def graphs_over_limit(model: nn.Module, modules: Mapping[str, Sequence[Hashable]]) -> int:
    """Return the `graph_variants` of a model if they are more than torch's limit, else 0."""
    graphs = graph_variants(model, modules)
    return graphs if graphs > recompile_limit() else 0


def recompile_limit() -> int:
    """Return after how many graphs of one piece of code torch gives up (8 by default)."""
    config = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    if hasattr(config, "recompile_limit"):
        return config.recompile_limit
    return config.cache_size_limit  # its name in torch 2.6


def _compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _compiled_blocks(
    model: nn.Module, modules: Mapping[str, Sequence[Hashable]]
) -> dict[str, list[Sequence[Hashable]]]:
    """Return the variants of the wrapped modules in each compiled module, by its path."""
    blocks: dict[str, list[Sequence[Hashable]]] = {}
    for path, seen in modules.items():
        block = path
        while block and not _compiled(model.get_submodule(block)):
            block = block.rpartition(".")[0]
        if block:
            blocks.setdefault(block, []).append(seen)
    return blocks
