"""Adapters of whole blocks and of spans of blocks, derived from what a denoiser does."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.levels import Level, name_at, parts_name
from smoothcache_core.adapters.patterns import PatternAdapter, SpanPattern
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.discovering.find import WatchedRun, watched_run
from smoothcache_core.discovering.patterns import patterns_of
from smoothcache_core.discovering.sites import FoundSite
from smoothcache_core.errors import AdapterError
from smoothcache_core.relay import members_of

logger = logging.getLogger(__name__)

SPANS = 4
"""Spans that a chain of blocks is cut into: each keeps as much as one block does, and four of them
still leave something to choose from."""

_FEWEST = 2  # blocks of a span


def coarser_adapters(
    model: nn.Module,
    adapter: Adapter,
    run: Callable[[int], object],
    levels: Collection[Level] = ("blocks", "spans"),
    *,
    seed: int = 0,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[Level, PatternAdapter]:
    """Return adapters whose sites are blocks, or spans of them, found by two evaluations.

    A block's delta, its output minus its input, is kept where each of its outputs continues one of
    its inputs. Blocks that hand their outputs on as they are form a chain, which is cut into up to
    four spans; blocks of two lists may take turns in it, as those of STDiT3 do. What was left out
    is logged.

    Example:
        >>> variants = coarser_adapters(model, adapter, run, ("blocks",))
        >>> variants["blocks"].name
        'toy:blocks'

    Args:
        model: The denoiser that the sampler calls, not compiled; or a `Relay`.
        adapter: That of its parts.
        run: Runs the sampler once from the noise of a seed; it is stopped after two evaluations.
        levels: What is asked for: `"blocks"`, `"spans"` or both.
        seed: What `run` is called with.
        around: Makes what is entered around the run.

    Raises:
        AdapterError: The denoiser has no such blocks, `run` never called it, or it is compiled.
    """
    inside = denoiser(members_of(model)[0])
    watched = watched_run(model, adapter, partial(run, seed), around=around)
    blocks = [] if watched is None else _agreed(watched.choice.blocks)
    if watched is None or not blocks:
        raise AdapterError(
            f"{type(inside).__name__} has no blocks whose outputs continue their inputs, so there "
            "are no deltas of blocks to keep; plan for parts or whole evaluations"
        )
    _tell(watched, blocks)
    chains = _chains(watched, blocks)
    patterns = {"blocks": patterns_of(inside, blocks), "spans": _spans(chains)}
    found: dict[Level, PatternAdapter] = {}
    for level in levels:
        if not patterns[level]:
            raise AdapterError(
                f"no blocks of {type(inside).__name__} hand their outputs on to the next one as "
                "they are, so there are no spans of blocks; plan for blocks"
            )
        found[level] = PatternAdapter(
            name=name_at(parts_name(adapter.name), level),
            patterns=patterns[level],
            latent=adapter.latent,
            timestep=adapter.timestep,
            guidance=adapter.guidance,
        )
    return found


def _tell(watched: WatchedRun, blocks: Sequence[FoundSite]) -> None:
    """Say which blocks are left out, if any are."""
    lists = {site.path.rpartition(".")[0] for site in blocks}
    left = {
        path: reason
        for path, reason in watched.choice.left_out.items()
        if path.rpartition(".")[0] in lists
    }
    for path, reason in left.items():
        logger.info("the block %r is left out: %s", path, reason)


def _agreed(blocks: Sequence[FoundSite]) -> list[FoundSite]:
    """Return blocks of which those of one list continue the same inputs.

    A single one may be more like another input by chance, such as an embedding of positions.
    """
    votes: dict[tuple[str, int], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for site in reversed(blocks):  # of as many votes the later one counts
        votes[_list(site), len(site.inputs)][site.inputs] += 1
    chosen = {key: each.most_common(1)[0][0] for key, each in votes.items()}
    return [replace(site, inputs=chosen[_list(site), len(site.inputs)]) for site in blocks]


def _chains(watched: WatchedRun, blocks: Sequence[FoundSite]) -> list[list[FoundSite]]:
    """Return runs of blocks, each of which is given what the one before it gives."""
    chains: list[list[FoundSite]] = []
    for site in blocks:
        last = chains[-1][-1] if chains else None
        follows = watched.seen[site.path].follows
        if last is not None and follows == last.path and site.inputs == last.inputs:
            chains[-1].append(site)
        else:
            chains.append([site])
    return chains


def _spans(chains: Sequence[Sequence[FoundSite]]) -> tuple[SpanPattern, ...]:
    """Return the patterns of all spans."""
    return tuple(span for chain in chains for part in _stretches(chain) for span in _cut(part))


def _stretches(chain: Sequence[FoundSite]) -> list[list[FoundSite]]:
    """Return the parts of a chain that a span can name: of one list, or of two that take turns."""
    if _take_turns(chain):
        return [list(chain)]
    parts: list[list[FoundSite]] = [[chain[0]]]
    for before, site in pairwise(chain):
        if _number(site) == _number(before) + 1 and _list(site) == _list(before):
            parts[-1].append(site)
        else:
            parts.append([site])
    return parts


def _take_turns(chain: Sequence[FoundSite]) -> bool:
    """Whether each block of one list is followed by that of its number in another one."""
    pairs = list(zip(chain[::2], chain[1::2], strict=False))
    firsts, seconds = ({_list(pair[n]) for pair in pairs} for n in (0, 1))
    numbers = [_number(one) for one, _ in pairs]
    return (
        len(chain) % 2 == 0
        and len(firsts) == len(seconds) == 1
        and firsts != seconds
        and all(_number(one) == _number(other) for one, other in pairs)
        and all(later == earlier + 1 for earlier, later in pairwise(numbers))
    )


def _cut(blocks: Sequence[FoundSite]) -> list[SpanPattern]:
    """Return the spans of blocks that a span can name: of nearly equal lengths, at least two."""
    names = list(dict.fromkeys(map(_list, blocks)))
    turn = len(names)
    steps = len(blocks) // turn
    count = min(SPANS, len(blocks) // _FEWEST, steps)
    if not count:
        return []
    edges = [round(n * steps / count) for n in range(count + 1)]
    start = _number(blocks[0])
    return [
        SpanPattern(
            names[0],
            f"{names[0].replace('.', '_')}_span",
            first=start + first,
            last=start + end - 1,
            inputs=blocks[0].inputs,
            second=names[1] if turn > 1 else "",
        )
        for first, end in pairwise(edges)
    ]


def _list(site: FoundSite) -> str:
    return site.path.rpartition(".")[0]


def _number(site: FoundSite) -> int:
    return int(site.path.rpartition(".")[2])
