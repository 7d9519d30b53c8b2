"""What the video benchmarks compare: the plain STDiT3, this library, and other people's caches."""

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from smoothcache_video.open_sora.layers import modulated
from smoothcache_video.open_sora.stdit3 import STDiT3Block
from torch import Tensor, nn

from tools.bench.baselines.diffusers_hooks import taylorseer_every
from tools.bench.baselines.hosts import Host, masked
from tools.bench.baselines.ours import smoothcache, whole_evaluations
from tools.bench.baselines.peers import ALWAYS
from tools.bench.baselines.teacache import Tea
from tools.bench.policies import CONTROL, PLAIN, Policy, all_computed, spaced

_PARTS = {"attn": 0, "cross_attn": 2, "mlp": 3}
RANKS = MappingProxyType(
    {
        f"{where}_{part}": 1 if (where, part) == ("temporal", "attn") else rank
        for where in ("spatial", "temporal")
        for part, rank in _PARTS.items()
    }
)
"""The place of every kind of site in pyramid attention broadcast."""

KINDS = tuple(RANKS)
_MODULES = r"(spatial|temporal)_blocks\.\d+\.(attn|cross_attn|mlp)"
HOST = Host(block=STDiT3Block, blocks="spatial_blocks", known=False, pattern=_MODULES)

PUBLISHED = (0.86, 0.82)
"""Compute fractions of Open-Sora in the paper (arXiv 2411.10510)."""
FRACTIONS = (*PUBLISHED, 0.5, 0.25)


def _in_order(model: Any) -> Sequence[nn.Module]:
    pairs = zip(model.spatial_blocks, model.temporal_blocks, strict=True)
    return [block for pair in pairs for block in pair]


def _modulated_input(block: Any, x: Tensor, text: Tensor, t: Tensor, *more: object) -> Tensor:
    """Return what the attention of a block is given."""
    del text, more
    shift, scale, *_ = block._modulations(t)
    return modulated(block.norm1(x), shift, scale)


TEA = Tea(blocks=_in_order, signal=_modulated_input)


def policies() -> list[Policy]:
    """Return everything that is compared: the plain model, itself again as a control, caches."""
    return [PLAIN, CONTROL, *_ours(), *_peers()]


def _ours() -> list[Policy]:
    sites = partial(smoothcache, *KINDS)
    found = {
        "all computed": sites(row=all_computed),
        **{f"all sites at {each:g}": sites(row=spaced(each)) for each in FRACTIONS},
        **{
            f"whole evaluations at {each:g}, filled": whole_evaluations(spaced(each))
            for each in FRACTIONS
        },
    }
    return [
        Policy(name="smoothcache", setting=setting, attach=made, ours=True)
        for setting, made in found.items()
    ]


def _peers() -> list[Policy]:
    least, row = FRACTIONS[-1], spaced(FRACTIONS[-1])
    every = round(1 / least)
    return [
        Policy(
            name="taylorseer",
            setting=f"all sites, order 1, every {every}th evaluation",
            attach=HOST.diffusers(taylorseer_every(interval=every, cache_identifiers=[_MODULES])),
        ),
        Policy(
            name="cache-dit",
            setting=f"DBCache, 1 block always computed, mask of evaluations at {least:g}",
            attach=HOST.cache_dit(
                lambda evaluations: masked(row(evaluations), blocks=1, threshold=ALWAYS)
            ),
            looks_at_data=True,
        ),
    ]
