"""DeepCache (arXiv 2312.00858): a UNet's deep branch is reused, all shallower layers are computed.

Intervals are uniform, as in the package DeepCache, whose numbering of branches this is: branch
3 b + l keeps what lies behind layer l of the b-th block down, counted from the outermost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.unets import (
    DOWN,
    UP,
    block_patterns,
    checked_unet,
    count,
    layers_of,
    made,
)
from smoothcache_core.errors import AdapterError, ScheduleError
from smoothcache_core.schedule.adapter_data import AdapterData
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

if TYPE_CHECKING:
    from torch import nn

_LAYERS = 3  # branches that the package counts for a block down: two layers and a downsampler


def deepcache(
    model: nn.Module,
    *,
    interval: int,
    branch: int = 0,
    evaluations: int,
    timesteps: Iterable[float] | None = None,
) -> Schedule:
    """Return DeepCache's schedule: what lies deeper than a branch is computed every so often.

    The schedule records where its sites are, so `cached_pipeline` needs nothing else.

    Example:
        The settings of its README, `set_params(cache_interval=3, cache_branch_id=0)`::

            schedule = deepcache(pipe.unet, interval=3, branch=0, evaluations=50)
            with cached_pipeline(pipe, schedule):
                image = pipe("a fox", num_inference_steps=50).images[0]

    Args:
        model: The UNet, compiled or not.
        interval: Distance between evaluations that are computed as a whole, at least 1.
        branch: Number of the branch, from 0, which skips the most.
        evaluations: Evaluations of one run, at least 1.
        timesteps: Those of the scheduler, one for each evaluation. Where one is there twice, as of
            PNDM and Heun, the package takes its second evaluation for the first; without them it
            counts as any other.

    Raises:
        AdapterError: The model is no UNet, or has no such branch.
        ScheduleError: `interval` or `evaluations` is below 1, or there are other timesteps.
    """
    if interval < 1 or evaluations < 1:
        raise ScheduleError(
            f"an interval and evaluations are at least 1, got {interval} and {evaluations}"
        )
    adapter = deepcache_adapter(model, branch)
    known = list(range(evaluations) if timesteps is None else map(float, timesteps))
    if len(known) != evaluations:
        raise ScheduleError(f"{evaluations} evaluations have as many timesteps, got {len(known)}")
    row = tuple(int(known.index(each) % interval == 0) for each in known)
    kinds = dict.fromkeys(pattern.kind for pattern in adapter.patterns)
    return Schedule(
        evaluations=evaluations,
        rows=dict.fromkeys(kinds, row),
        source=Provenance(name="deepcache", settings={"interval": interval, "branch": branch}),
        fingerprint=Fingerprint(
            model_class=type(checked_unet(model)).__name__,
            adapter=adapter.name,
            adapter_data=AdapterData.of_adapter(adapter),
        ),
    )


def deepcache_adapter(model: nn.Module, branch: int = 0) -> PatternAdapter:
    """Return the adapter of what DeepCache skips, to calibrate, plan and fit it like other sites.

    Args:
        model: The UNet, compiled or not.
        branch: Number of the branch, from 0.

    Raises:
        AdapterError: The model is no UNet, or has no such branch.
    """
    unet = checked_unet(model)
    block, layer = divmod(branch, _LAYERS)
    depth = count(unet, DOWN)
    if not 0 <= block < depth:
        raise AdapterError(
            f"{type(unet).__name__} has {depth} blocks down, so its branches are 0 to "
            f"{_LAYERS * depth - 1}, got {branch}"
        )
    patterns = [*block_patterns(unet, down=block + bool(layer), up=block + 1)]
    inner = [each for each in layers_of(unet, f"{DOWN}.{block}") if each.number >= layer > 0]
    outer = f"{UP}.{count(unet, UP) - 1 - block}"
    ways = [each for each in layers_of(unet, outer) if not each.sampler]
    most = max(each.number for each in ways)
    kept = [each for each in ways if most - each.number > layer]
    first = [each.pattern for each in inner]
    return made(unet, f"deepcache-{branch}", [*first, *patterns, *(e.pattern for e in kept)])
