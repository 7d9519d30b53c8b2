"""What the image speed benchmark compares: the plain DiT, this library, and the peers' caches."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.hooks.sea_cache import SeaCacheConfig
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

from tools.bench.baselines.diffusers_hooks import (
    first_block_by,
    mag_every,
    pyramid,
    taylorseer_every,
)
from tools.bench.baselines.hosts import Call, Config, Host, masked
from tools.bench.baselines.ours import smoothcache, whole_evaluations
from tools.bench.baselines.peers import ALMOST_ALWAYS, ALWAYS
from tools.bench.baselines.teacache import Tea
from tools.bench.policies import (
    CONTROL,
    PLAIN,
    Attach,
    Policy,
    Row,
    all_computed,
    one_reused,
    spaced,
)

HOST = Host(block=BasicTransformerBlock, blocks="transformer_blocks")


def _modulated_input(block: Any, x: Tensor, *args: object, **given: Any) -> Tensor:
    """Return what the attention of a block is given."""
    del args
    modulated, *_ = block.norm1(x, given["timestep"], given["class_labels"], hidden_dtype=x.dtype)
    return modulated


TEA = Tea(blocks=lambda model: list(model.transformer_blocks), signal=_modulated_input)


def falling_lags(evaluations: int) -> Row:
    """Return a row that reuses 3 times, then twice, twice again, then once; the last is computed.

    With 50 evaluations 24 are computed, in the pattern of SmoothCache's published schedule for
    DiT-XL at alpha 0.18.
    """
    computed, gaps = {0, evaluations - 1}, iter((4, 3, 3))
    position = 0
    while position < evaluations:
        computed.add(position)
        position += next(gaps, 2)
    return tuple(int(i in computed) for i in range(evaluations))


def _sea(call: Call) -> SeaCacheConfig:
    del call
    return SeaCacheConfig(
        threshold=ALWAYS,
        max_consecutive_cached=1,
        raw_vision_callback=lambda module, arguments, named: [
            latent.unsqueeze(1) for latent in arguments[0]
        ],
    )


def _faster(*more: str) -> Config:
    def config(call: Call) -> FasterCacheConfig:
        made = FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            unconditional_batch_skip_range=2,
            unconditional_batch_timestep_skip_range=(-1, 1001),
            attention_weight_callback=lambda module: 0.5,
            tensor_format="BCHW",
            current_timestep_callback=call.timestep,  # pyright: ignore[reportArgumentType]
        )
        identifiers: Any = (*made._unconditional_conditional_input_kwargs_identifiers, *more)  # pyright: ignore[reportPrivateUsage]
        made._unconditional_conditional_input_kwargs_identifiers = identifiers  # pyright: ignore[reportPrivateUsage]
        return made

    return config


# ---------------------------------------------------------------------------- all of them


def policies() -> list[Policy]:
    """Return everything that is compared: the plain model, itself again as a control, caches."""
    return [
        PLAIN,
        CONTROL,
        *_ours(),
        Policy(name="dit-smoothcache", setting="attn1", attach=_published("attn1")),
        Policy(name="dit-smoothcache", setting="attn1, ff", attach=_published("attn1", "ff")),
        *_of_diffusers(),
        Policy(
            name="cache-dit",
            setting="DBCache, 1 block always computed, mask of evaluations",
            attach=HOST.cache_dit(
                lambda evaluations: masked(
                    falling_lags(evaluations), blocks=1, threshold=ALMOST_ALWAYS
                )
            ),
            looks_at_data=True,
        ),
    ]


def _published(*components: str) -> Attach:
    return HOST.dit_smoothcache(
        lambda evaluations: dict.fromkeys(components, falling_lags(evaluations))
    )


def _ours() -> Sequence[Policy]:
    settings: Mapping[str, Attach] = {
        "attn1, ff": smoothcache("attn1", "ff", row=falling_lags),
        "whole evaluations, filled": whole_evaluations(falling_lags),
        "whole evaluations at 0.25, filled": whole_evaluations(spaced(0.25)),
        "attn1": smoothcache("attn1", row=falling_lags),
        "all computed": smoothcache("attn1", "ff", row=all_computed),
        "all sites wrapped, one evaluation reused": smoothcache("attn1", "ff", row=one_reused),
    }
    return [
        Policy(name="smoothcache", setting=setting, attach=made, ours=True)
        for setting, made in settings.items()
    ]


def _of_diffusers() -> Sequence[Policy]:
    sites = [r"transformer_blocks\.\d+\.(attn1|ff)"]
    return [
        Policy(
            name="pyramid-attention-broadcast",
            setting="attn1, every second evaluation",
            attach=HOST.diffusers(pyramid),
        ),
        Policy(
            name="first-block-cache",
            setting="all blocks but the first",
            attach=first_block_by(HOST, falling_lags),
            looks_at_data=True,
        ),
        Policy(
            name="taylorseer",
            setting="default modules, order 1",
            attach=HOST.diffusers(taylorseer_every()),
        ),
        Policy(
            name="taylorseer",
            setting="attn1, ff, order 1, every second evaluation",
            attach=HOST.diffusers(taylorseer_every(cache_identifiers=sites)),
        ),
        Policy(
            name="magcache",
            setting="all blocks, every second evaluation",
            attach=HOST.diffusers(mag_every()),
        ),
        Policy(
            name="seacache",
            setting="all blocks, every second evaluation",
            attach=HOST.diffusers(_sea),
            looks_at_data=True,
        ),
        Policy(name="fastercache", setting="default inputs", attach=HOST.diffusers(_faster())),
        Policy(
            name="fastercache",
            setting="class_labels among the inputs, every second evaluation",
            attach=HOST.diffusers(_faster("class_labels")),
        ),
    ]
