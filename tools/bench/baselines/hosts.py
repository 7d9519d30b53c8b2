"""Other people's caches as policies of speed benchmarks.

Peers are imported when they are put on; one that is not installed, or that refuses the model, is
reported. All are given the same work to skip as far as they let themselves be told: most take a
fixed interval, and those that decide by looking at the data get a threshold that makes them skip
where the row says, since random weights give them nothing sensible to look at. What deciding costs
them is still paid.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.pyramid_attention_broadcast import PyramidAttentionBroadcastConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from torch import nn

from tools.bench.baselines import peers
from tools.bench.baselines.ours import Attach, Attached, RowOf, Setup, of_setup
from tools.bench.baselines.peers import ALMOST_ALWAYS, ALWAYS, NEVER, diffusers_cache, hooks_of

Config = Callable[[Setup, Callable[[], float]], Any]
"""Makes a configuration from the setup and a function that tells the timestep, in [0, 1000)."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where caches are put on a model.

    Attributes:
        block: Class of its blocks.
        blocks: Name of the list of its blocks.
        part: Returns the model, or the part of it that holds this list.
        known: Whether cache-dit knows the model by its class.
    """

    block: type[nn.Module]
    blocks: str
    part: Callable[[Any], nn.Module] = lambda model: model
    known: bool = True

    def listed(self, model: nn.Module) -> nn.ModuleList | None:
        """Return the blocks, if cache-dit has to be told."""
        return None if self.known else getattr(self.part(model), self.blocks)

    def dit_smoothcache(self, *components: str, row: RowOf = of_setup) -> Attach:
        """Return the package of the paper on `components`."""

        @contextmanager
        def put(model: nn.Module, setup: Setup) -> Generator[Attached]:
            schedule = dict.fromkeys(components, row(setup))
            with peers.dit_smoothcache(model, schedule, block=self.block) as around:
                yield Attached(around=around)

        return put

    def cache_dit(
        self, *, blocks: int, row: RowOf = of_setup, threshold: float = ALMOST_ALWAYS
    ) -> Attach:
        """Return cache-dit's DBCache with a mask of evaluations and `blocks` blocks computed."""

        @contextmanager
        def put(model: nn.Module, setup: Setup) -> Generator[Attached]:
            config = {
                "Fn_compute_blocks": blocks,
                "Bn_compute_blocks": 0,
                "residual_diff_threshold": threshold,
                "max_warmup_steps": 0,
                "num_inference_steps": setup.evaluations,
                "steps_computation_mask": list(row(setup)),
                "steps_computation_policy": "dynamic",
            }
            with peers.cache_dit(self.part(model), config, blocks=self.listed(model)) as around:
                yield Attached(around=around)

        return put

    def hooks(self, config: Config, *, follow: RowOf | None = None) -> Attach:
        """Return one of diffusers' own caches.

        Args:
            config: Makes the configuration.
            follow: Set the threshold before every evaluation, to skip where this row says.
        """

        @contextmanager
        def put(model: nn.Module, setup: Setup) -> Generator[Attached]:
            part: Any = self.part(model)
            place = {"evaluation": 0}

            def before(evaluation: int) -> None:
                place["evaluation"] = evaluation
                if follow is not None:
                    head, *_ = hooks_of(getattr(part, self.blocks)[0])
                    head.threshold = NEVER if follow(setup)[evaluation] else ALWAYS

            with diffusers_cache(
                part,
                config(setup, lambda: 1000 * setup.sigmas[place["evaluation"]]),
                sigmas=setup.sigmas,
                before=before,
            ) as around:
                yield Attached(around=around)

        return put


def pyramid(setup: Setup, timestep: Callable[[], float]) -> PyramidAttentionBroadcastConfig:
    """Return pyramid attention broadcast on every second evaluation."""
    del setup
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=timestep,  # pyright: ignore[reportArgumentType]
    )


def first_block(setup: Setup, timestep: Callable[[], float]) -> FirstBlockCacheConfig:
    """Return first-block cache; the threshold is set later."""
    del setup, timestep
    return FirstBlockCacheConfig(threshold=NEVER)


def taylorseer(*, interval: int = 2, **given: Any) -> Config:
    """Return TaylorSeer of order 1 at a fixed interval."""

    def config(setup: Setup, timestep: Callable[[], float]) -> TaylorSeerCacheConfig:
        del timestep
        return TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=1,
            max_order=1,
            taylor_factors_dtype=setup.dtype,
            **given,
        )

    return config


def mag(*, skips: int = 1) -> Config:
    """Return MagCache that skips `skips` evaluations after each that it computes."""

    def config(setup: Setup, timestep: Callable[[], float]) -> MagCacheConfig:
        del timestep
        return MagCacheConfig(
            mag_ratios=[1.0] * setup.evaluations,
            max_skip_steps=skips,
            retention_ratio=0.0,
            num_inference_steps=setup.evaluations,
        )

    return config
