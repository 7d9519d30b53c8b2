"""What the audio speed benchmark compares: the plain transformer, this library, peers' caches."""

from functools import partial
from typing import Any

from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from smoothcache_audio.stable_audio_tools import quiet_loading
from torch import Tensor, nn

from tools.bench.baselines.diffusers_hooks import (
    first_block_by,
    mag_every,
    pyramid,
    taylorseer_every,
)
from tools.bench.baselines.hosts import Host, masked
from tools.bench.baselines.ours import smoothcache, whole_evaluations
from tools.bench.baselines.peers import ALWAYS
from tools.bench.baselines.teacache import Tea
from tools.bench.policies import CONTROL, PLAIN, Policy, spaced

KINDS = ("self_attn", "cross_attn", "ff")
ALL_SITES = ", ".join(KINDS)
PUBLISHED = (0.81, 0.65)
"""Compute fractions of Stable Audio Open in table 3 of the paper (arXiv 2411.10510)."""
LEAST = 0.25


def policies() -> list[Policy]:
    """Return everything that is compared: the plain model, itself again as a control, caches."""
    return [PLAIN, CONTROL, *_ours(), *_peers()]


def _ours() -> list[Policy]:
    sites = partial(smoothcache, *KINDS)
    found = {
        **{f"{ALL_SITES} at {each:g}": sites(row=spaced(each)) for each in (*PUBLISHED, LEAST)},
        **{
            f"whole evaluations at {each:g}, filled": whole_evaluations(spaced(each))
            for each in (PUBLISHED[1], LEAST)
        },
    }
    return [
        Policy(name="smoothcache", setting=setting, attach=made, ours=True)
        for setting, made in found.items()
    ]


def _blocks(model: Any) -> nn.Module:
    return model.transformer


def host() -> Host:
    """Return where peers' caches go on a transformer of stable-audio-tools, made known to them."""
    with quiet_loading():
        from stable_audio_tools.models.transformer import TransformerBlock

    TransformerBlockRegistry.register(
        TransformerBlock,
        TransformerBlockMetadata(
            return_hidden_states_index=0,
            return_encoder_hidden_states_index=None,  # pyright: ignore[reportArgumentType] as for DiT
            hidden_states_argument_name="x",
        ),
    )
    return Host(block=TransformerBlock, blocks="layers", part=_blocks, known=False)


def _modulated_input(block: Any, x: Tensor, *args: object, **given: Any) -> Tensor:
    """Return what the attention of a block is given."""
    del args
    normed, embedded = block.pre_norm(x), given.get("global_cond")
    if embedded is None or not block.global_cond_dim:
        return normed
    scale, shift, *_ = (block.to_scale_shift_gate + embedded).unsqueeze(1).chunk(6, dim=-1)
    return normed * (1 + scale) + shift


TEA = Tea(blocks=lambda model: list(model.transformer.layers), signal=_modulated_input)


def _peers() -> list[Policy]:
    place = host()
    modules = [r"layers\.\d+\.(self_attn|cross_attn|ff)"]
    every, row = round(1 / LEAST), spaced(LEAST)
    return [
        Policy(
            name="dit-smoothcache",
            setting=f"{ALL_SITES} at {LEAST:g}",
            attach=place.dit_smoothcache(
                lambda evaluations: dict.fromkeys(KINDS, row(evaluations))
            ),
        ),
        Policy(
            name="cache-dit",
            setting=f"DBCache, 1 block always computed, mask of evaluations at {LEAST:g}",
            attach=place.cache_dit(
                lambda evaluations: masked(row(evaluations), blocks=1, threshold=ALWAYS)
            ),
            looks_at_data=True,
        ),
        Policy(
            name="taylorseer",
            setting=f"{ALL_SITES}, order 1, every {every}th evaluation",
            attach=place.diffusers(taylorseer_every(interval=every, cache_identifiers=modules)),
        ),
        Policy(
            name="taylorseer", setting="default modules", attach=place.diffusers(taylorseer_every())
        ),
        Policy(
            name="first-block-cache",
            setting=f"all blocks but the first, mask of evaluations at {LEAST:g}",
            attach=first_block_by(place, row),
            looks_at_data=True,
        ),
        Policy(
            name="magcache",
            setting=f"all blocks, every {every}th evaluation",
            attach=place.diffusers(mag_every(skips=every - 1)),
        ),
        Policy(
            name="pyramid-attention-broadcast",
            setting="default modules, every second evaluation",
            attach=place.diffusers(pyramid),
        ),
    ]
