"""What the image speed benchmark compares: the plain DiT, this library, and the peers' caches.

A policy is put on a copy of the model that shares its weights, and taken off again. Peers are
imported when they are put on; one that is not installed, or that refuses the model, is reported.
All are given the same work to skip as far as they let themselves be told: most take a fixed
interval, and those that decide by looking at the data get a threshold that makes them skip where
the row says, since random weights give them nothing sensible to look at. What deciding costs them
is still paid.
"""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import _image_peers
import torch
from _image_peers import ALMOST_ALWAYS, ALWAYS, NEVER, Around, diffusers_cache, hooks_of
from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.hooks.sea_cache import SeaCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from smoothcache_core import (
    DENOISER,
    CacheStats,
    Fill,
    Schedule,
    SmoothCacheWarning,
    attach,
)
from smoothcache_image import DIT

Row = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the policies of one benchmark have in common.

    Attributes:
        row: One entry per evaluation, 1 compute, 0 reuse.
        timesteps: Timestep of each evaluation, falling, in [0, 1000).
        scheduler: The sampler's scheduler.
        dtype: Data type of the model.
    """

    row: Row
    timesteps: Sequence[int]
    scheduler: DDIMScheduler
    dtype: torch.dtype

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return len(self.row)


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A policy at work.

    Attributes:
        around: Gives what has to be in force during an evaluation.
        schedule: This library's schedule.
        stats: What this library's cache counted.
    """

    around: Around = lambda evaluation: nullcontext()
    schedule: Schedule | None = None
    stats: CacheStats | None = None


Attach = Callable[[DiTTransformer2DModel, Setup], AbstractContextManager[Attached]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy at one setting.

    Attributes:
        name: Its name in records.
        setting: Its setting in words.
        attach: Puts it on a model.
        ours: Whether it is this library's.
        looks_at_data: Whether it reads tensors to decide, so that it cannot run on shapes alone.
    """

    name: str
    setting: str
    attach: Attach
    ours: bool = False
    looks_at_data: bool = False

    @property
    def key(self) -> str:
        """Name and setting."""
        return f"{self.name} ({self.setting})"


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


# ---------------------------------------------------------------------------- plain and ours


@contextmanager
def plain(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
    """Change nothing."""
    del model, setup
    yield Attached()


def smoothcache(*kinds: str, row: Callable[[Setup], Row] = lambda setup: setup.row) -> Attach:
    """Return this library's cache on sites of `kinds`."""

    @contextmanager
    def put(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
        rows: Any = dict.fromkeys(kinds, row(setup))
        schedule = Schedule(evaluations=setup.evaluations, rows=rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SmoothCacheWarning)  # that all is computed is meant
            attachment = attach(model, DIT, schedule, scheduler=setup.scheduler)
        yield Attached(schedule=schedule, stats=attachment.stats)
        attachment.detach(quietly=True)

    return put


@contextmanager
def whole_evaluations(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
    """Skip whole evaluations, each filled by two terms and the latent."""
    schedule = Schedule(
        evaluations=setup.evaluations,
        rows={DENOISER.kind: setup.row},  # pyright: ignore[reportArgumentType]
        fills={DENOISER.kind: _two_terms(setup.row)},
    )
    attachment = attach(model, DIT, schedule, scheduler=setup.scheduler)
    yield Attached(schedule=schedule, stats=attachment.stats)
    attachment.detach(quietly=True)


def _two_terms(row: Row) -> Fill:
    skipped = [i for i, computed in enumerate(row) if not computed and sum(row[:i]) > 1]
    return Fill(terms=dict.fromkeys(skipped, (1.5, -0.5)), inputs=dict.fromkeys(skipped, 0.01))


def _all_computed(setup: Setup) -> Row:
    return (1,) * setup.evaluations


def _one_reused(setup: Setup) -> Row:
    return tuple(int(i != setup.evaluations // 2) for i in range(setup.evaluations))


PLAIN = Policy(name="plain", setting="-", attach=plain)


# ---------------------------------------------------------------------------- dit-smoothcache


def dit_smoothcache(*components: str) -> Attach:
    """Return the package of the paper on `components`."""

    @contextmanager
    def put(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
        schedule = dict.fromkeys(components, setup.row)
        with _image_peers.dit_smoothcache(model, schedule) as around:
            yield Attached(around=around)

    return put


# ---------------------------------------------------------------------------- diffusers


def hooks(config: Callable[[Setup, Callable[[], int]], Any], *, follow: bool = False) -> Attach:
    """Return one of diffusers' own caches.

    Args:
        config: Makes the configuration from the setup and a function that tells the timestep.
        follow: Set the threshold before every evaluation, to skip where the row says.
    """

    @contextmanager
    def put(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
        place = {"evaluation": 0}

        def before(evaluation: int) -> None:
            place["evaluation"] = evaluation
            if follow:
                head, *_ = hooks_of(model.transformer_blocks[0])
                head.threshold = NEVER if setup.row[evaluation] else ALWAYS

        with diffusers_cache(
            model,
            config(setup, lambda: setup.timesteps[place["evaluation"]]),
            sigmas=[timestep / 1000 for timestep in setup.timesteps],
            before=before,
        ) as around:
            yield Attached(around=around)

    return put


def _pyramid(setup: Setup, timestep: Callable[[], int]) -> PyramidAttentionBroadcastConfig:
    del setup
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=timestep,
    )


def _first_block(setup: Setup, timestep: Callable[[], int]) -> FirstBlockCacheConfig:
    del setup, timestep
    return FirstBlockCacheConfig(threshold=NEVER)


def _taylorseer(**given: Any) -> Callable[[Setup, Callable[[], int]], TaylorSeerCacheConfig]:
    def config(setup: Setup, timestep: Callable[[], int]) -> TaylorSeerCacheConfig:
        del timestep
        return TaylorSeerCacheConfig(
            cache_interval=2,
            disable_cache_before_step=1,
            max_order=1,
            taylor_factors_dtype=setup.dtype,
            **given,
        )

    return config


def _mag(setup: Setup, timestep: Callable[[], int]) -> MagCacheConfig:
    del timestep
    return MagCacheConfig(
        mag_ratios=[1.0] * setup.evaluations,
        max_skip_steps=1,
        retention_ratio=0.0,
        num_inference_steps=setup.evaluations,
    )


def _sea(setup: Setup, timestep: Callable[[], int]) -> SeaCacheConfig:
    del setup, timestep
    return SeaCacheConfig(
        threshold=ALWAYS,
        max_consecutive_cached=1,
        raw_vision_callback=lambda module, arguments, named: [
            latent.unsqueeze(1) for latent in arguments[0]
        ],
    )


def _faster(*more: str) -> Callable[[Setup, Callable[[], int]], FasterCacheConfig]:
    def config(setup: Setup, timestep: Callable[[], int]) -> FasterCacheConfig:
        del setup
        made = FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            unconditional_batch_skip_range=2,
            unconditional_batch_timestep_skip_range=(-1, 1001),
            attention_weight_callback=lambda module: 0.5,
            tensor_format="BCHW",
            current_timestep_callback=timestep,
        )
        identifiers: Any = (*made._unconditional_conditional_input_kwargs_identifiers, *more)  # pyright: ignore[reportPrivateUsage]
        made._unconditional_conditional_input_kwargs_identifiers = identifiers  # pyright: ignore[reportPrivateUsage]
        return made

    return config


# ---------------------------------------------------------------------------- cache-dit


def cache_dit(*, blocks: int) -> Attach:
    """Return cache-dit's DBCache with a mask of evaluations and `blocks` blocks always computed."""

    @contextmanager
    def put(model: DiTTransformer2DModel, setup: Setup) -> Generator[Attached]:
        config = {
            "Fn_compute_blocks": blocks,
            "Bn_compute_blocks": 0,
            "residual_diff_threshold": ALMOST_ALWAYS,
            "max_warmup_steps": 0,
            "num_inference_steps": setup.evaluations,
            "steps_computation_mask": list(setup.row),
            "steps_computation_policy": "dynamic",
        }
        with _image_peers.cache_dit(model, config) as around:
            yield Attached(around=around)

    return put


# ---------------------------------------------------------------------------- all of them


def policies() -> list[Policy]:
    """Return everything that is compared: the plain model, itself again as a control, caches."""
    return [
        PLAIN,
        Policy(name="plain", setting="a second time, as a control", attach=plain),
        *_ours(),
        Policy(name="dit-smoothcache", setting="attn1", attach=dit_smoothcache("attn1")),
        Policy(name="dit-smoothcache", setting="attn1, ff", attach=dit_smoothcache("attn1", "ff")),
        *_of_diffusers(),
        Policy(
            name="cache-dit",
            setting="DBCache, 1 block always computed, mask of evaluations",
            attach=cache_dit(blocks=1),
            looks_at_data=True,
        ),
    ]


def _ours() -> Sequence[Policy]:
    settings: Mapping[str, Attach] = {
        "attn1, ff": smoothcache("attn1", "ff"),
        "whole evaluations, filled": whole_evaluations,
        "attn1": smoothcache("attn1"),
        "all computed": smoothcache("attn1", "ff", row=_all_computed),
        "all sites wrapped, one evaluation reused": smoothcache("attn1", "ff", row=_one_reused),
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
            attach=hooks(_pyramid),
        ),
        Policy(
            name="first-block-cache",
            setting="all blocks but the first",
            attach=hooks(_first_block, follow=True),
            looks_at_data=True,
        ),
        Policy(name="taylorseer", setting="default modules, order 1", attach=hooks(_taylorseer())),
        Policy(
            name="taylorseer",
            setting="attn1, ff, order 1, every second evaluation",
            attach=hooks(_taylorseer(cache_identifiers=sites)),
        ),
        Policy(name="magcache", setting="all blocks, every second evaluation", attach=hooks(_mag)),
        Policy(
            name="seacache",
            setting="all blocks, every second evaluation",
            attach=hooks(_sea),
            looks_at_data=True,
        ),
        Policy(name="fastercache", setting="default inputs", attach=hooks(_faster())),
        Policy(
            name="fastercache",
            setting="class_labels among the inputs, every second evaluation",
            attach=hooks(_faster("class_labels")),
        ),
    ]
