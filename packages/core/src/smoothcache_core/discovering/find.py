"""Finding the sites of a denoiser that no adapter is known for."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from torch import nn

from smoothcache_core.adapters.compiled import denoiser, is_compiled
from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.signature import (
    all_latents,
    latent_and_timestep,
    whole_evaluations,
)
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.fingerprints import model_class
from smoothcache_core.discovering.layout import layout_of
from smoothcache_core.discovering.patterns import patterns_of
from smoothcache_core.discovering.sites import Choice, FoundSite
from smoothcache_core.discovering.trace import Seen, Watched, traced
from smoothcache_core.errors import AdapterError
from smoothcache_core.relay import members_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What was found of a denoiser.

    Attributes:
        adapter: Finds the sites; it has none where nothing was found.
        shares: The part of the denoiser's multiply-accumulates that the sites of each kind do.
        left_out: Why modules that look like sites are none, by their paths.
    """

    adapter: PatternAdapter
    shares: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def line(self) -> str:
        """What was found, in one line."""
        if not self.shares:
            return "no sites were found, so whole evaluations are what can be skipped"
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in self.shares.items())
        return f"sites were found by structure; of the MACs they do: {kinds}"


def structure_of(
    model: nn.Module,
    run: Callable[[int], object],
    *,
    seed: int = 0,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    latent: str | None = None,
    timestep: str | None = None,
) -> Structure:
    """Find the sites of a denoiser by its structure and two evaluations of a sampler.

    Blocks are the modules in lists that continue what they are given; sites are the outermost
    modules in them that are no single layer: attention and feed forward, whatever their names.
    Where these do less than 80 % of a block's multiply-accumulates, the block's delta is the site.
    Of a `Relay` the first denoiser is looked at, whose sites all of them have.

    Example:
        >>> found = structure_of(model, run)
        >>> found.adapter.sites(model), found.left_out
        ((), {})

    Args:
        model: The denoiser that the sampler calls, not compiled.
        run: Runs the sampler once from the noise of a seed; it is stopped after two evaluations.
        seed: What `run` is called with.
        around: Makes what is entered around the run.
        latent: Name of the argument that holds the noisy latent; found if not given.
        timestep: Name of the argument that holds the timestep; found if not given.

    Raises:
        AdapterError: The names cannot be found, `run` never called the denoiser, or it is compiled.
    """
    inside = denoiser(members_of(model)[0])
    whole = whole_evaluations(inside, latent=latent, timestep=timestep)
    watched = watched_run(model, whole, partial(run, seed), around=around)
    if watched is None:
        return Structure(adapter=whole, shares={}, left_out={})
    choice, total = watched.choice, watched.macs
    patterns = patterns_of(inside, choice.sites)
    adapter = PatternAdapter(
        name=model_class(inside) if patterns else whole.name,
        patterns=patterns,
        latent=whole.latent,
        timestep=whole.timestep,
    )
    structure = Structure(
        adapter=adapter,
        shares=_shares(adapter, inside, choice.sites, total),
        left_out=choice.left_out,
    )
    logger.info("%s: %s", type(inside).__name__, structure.line)
    return structure


@dataclass(frozen=True, kw_only=True)
class WatchedRun:
    """What two evaluations of a sampler told of a denoiser.

    Attributes:
        choice: Which of its modules can be sites.
        seen: What those that were called did, by their paths.
        macs: Multiply-accumulates of the denoiser in the first evaluation.
    """

    choice: Choice
    seen: Mapping[str, Seen]
    macs: int


def watched_run(
    model: nn.Module,
    adapter: Adapter,
    run: Callable[[], object],
    *,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> WatchedRun | None:
    """Watch two evaluations of a sampler; None where the denoiser has no lists of modules.

    Args:
        model: The denoiser that the sampler calls, or a `Relay`, of which the first is watched.
        adapter: How its calls are read.
        run: Runs the sampler once; it is stopped after two evaluations.
        around: Makes what is entered around the run.

    Raises:
        AdapterError: `run` never called the denoiser, or it is compiled.
    """
    inside = denoiser(members_of(model)[0])
    layout = layout_of(inside)
    if not layout.modules:
        return None
    if is_compiled(model):
        raise AdapterError(
            f"this {type(inside).__name__} is compiled; let its sites be found first, then compile"
        )
    own = {path: each for path, each in layout.modules.items() if path not in layout.shared}
    watched = Watched(modules=own, compared=frozenset(own) - layout.layers)
    seen, total = traced(inside, adapter, watched, run, around=around)
    return WatchedRun(choice=Choice(layout, seen), seen=seen, macs=total)


def find_by_structure(
    model: nn.Module,
    run: Callable[[int], object],
    *,
    seed: int = 0,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    latent: str | None = None,
    timestep: str | None = None,
) -> PatternAdapter:
    """Return an adapter for a denoiser that nobody knows; see `structure_of`.

    It is a value: print it, and paste it into your code.

    Example:
        >>> adapter = find_by_structure(model, run)
        >>> adapter.latent, adapter.timestep
        ('hidden_states', 'timestep')

    Args:
        model: The denoiser that the sampler calls, not compiled.
        run: Runs the sampler once from the noise of a seed; it is stopped after two evaluations.
        seed: What `run` is called with.
        around: Makes what is entered around the run.
        latent: Name of the argument that holds the noisy latent; found if not given.
        timestep: Name of the argument that holds the timestep; found if not given.

    Raises:
        AdapterError: The names cannot be found, `run` never called the denoiser, or it is compiled.
    """
    names = {"latent": latent, "timestep": timestep}
    return structure_of(model, run, seed=seed, around=around, **names).adapter


def found_later(
    model: nn.Module,
    run: Callable[[int], object],
    *,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LateAdapter:
    """Return an adapter that is found by structure when it is first needed.

    Args:
        model: The denoiser that the sampler calls.
        run: Runs the sampler once from the noise of a seed.
        around: Makes what is entered around the run.

    Raises:
        AdapterError: The names of latent and timestep cannot be found.
    """
    latent, timestep = latent_and_timestep(model)
    return LateAdapter(
        latent=all_latents(model, latent),
        timestep=timestep,
        search=partial(find_by_structure, model, run, around=around),
    )


def _shares(
    adapter: PatternAdapter, model: nn.Module, sites: Sequence[FoundSite], total: int
) -> dict[str, float]:
    macs, shares = {site.path: site.macs for site in sites}, Counter[str]()
    for site in adapter.sites(model):
        shares[site.kind] += macs[site.path]
    return {kind: share / total for kind, share in shares.items()}
