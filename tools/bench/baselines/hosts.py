"""Other people's caches attached to a model: where they go, and what drives them.

A peer is imported when it is attached; one that is not installed, or that refuses the model, says
so by an error. What a peer needs during an evaluation is put into force by `driven`.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from tools.bench.baselines import peers
from tools.bench.policies import Attach, Attachable, Attached, Row, driven


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a configuration of diffusers' caches may depend on.

    Attributes:
        steps: Evaluations of one run.
        dtype: Data type of the model.
        timestep: Tells the timestep of the evaluation under way, in (0, 1000], falling.
    """

    steps: int
    dtype: Any
    timestep: Callable[[], float]


Config = Callable[[Call], Any]
"""Makes a configuration of one of diffusers' caches."""
Before = Callable[[Any, int], None]
"""Told before an evaluation: the part of the model that holds the blocks, and which evaluation."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where caches are put on a model.

    Attributes:
        block: Class of its blocks.
        blocks: Name of the list of its blocks.
        part: Returns the model, or the part of it that holds this list.
        known: Whether cache-dit knows the model by its class.
        pattern: Regular expression of the modules of all sites, if the kinds of sites are not the
            names of modules in the blocks.
    """

    block: type[nn.Module]
    blocks: str
    part: Callable[[Any], nn.Module] = lambda model: model
    known: bool = True
    pattern: str | None = None

    def listed(self, model: nn.Module) -> nn.ModuleList | None:
        """Return the blocks, if cache-dit has to be told."""
        return None if self.known else getattr(self.part(model), self.blocks)

    def dit_smoothcache(self, rows: Callable[[int], Mapping[str, Sequence[int]]]) -> Attach:
        """Return the package of the paper.

        Args:
            rows: Returns for so many evaluations the row of each component, such as `attn1`.
        """

        @contextmanager
        def attached(sampler: Attachable) -> Generator[Attached]:
            model, given = sampler.model, rows(sampler.steps)
            self._refuse_unnamed(model, given)
            with (
                peers.quiet(),
                peers.dit_smoothcache(model, given, block=self.block) as around,
                driven(model, around, sampler.steps),
            ):
                yield Attached(sampler=sampler)

        return attached

    def _refuse_unnamed(self, model: Any, rows: Mapping[str, Sequence[int]]) -> None:
        """Refuse rows of which none names a component of a block: nothing would be cached."""
        blocks = [module for module in model.modules() if isinstance(module, self.block)]
        names = {key.partition("-")[0] for key in rows}
        if not any(hasattr(block, name) for block in blocks for name in names):
            raise ValueError(f"no {self.block.__name__} has a component of {sorted(names)}")

    def cache_dit(
        self, config: Callable[[int], Mapping[str, Any]], *, taylor_order: int | None = None
    ) -> Attach:
        """Return cache-dit's DBCache.

        Args:
            config: Returns the fields of its configuration for so many evaluations.
            taylor_order: Also extrapolate, see `peers.cache_dit`.
        """

        @contextmanager
        def attached(sampler: Attachable) -> Generator[Attached]:
            model = sampler.model
            given = {"num_inference_steps": sampler.steps, **config(sampler.steps)}
            part, blocks = self.part(model), self.listed(model)
            with (
                peers.quiet(),
                peers.cache_dit(part, given, taylor_order=taylor_order, blocks=blocks) as around,
                driven(model, around, sampler.steps),
            ):
                yield Attached(sampler=sampler)

        return attached

    def diffusers(
        self, config: Config, *, before: Before = lambda part, evaluation: None
    ) -> Attach:
        """Return one of diffusers' own caches.

        Args:
            config: Makes the configuration.
            before: Told before every evaluation; may turn the screws of hooks.
        """

        @contextmanager
        def attached(sampler: Attachable) -> Generator[Attached]:
            model, steps = sampler.model, sampler.steps
            part, place = self.part(model), [0]
            ramp = np.linspace(1.0, 0.0, steps, endpoint=False).tolist()

            def told(evaluation: int) -> None:
                place[0] = evaluation
                before(part, evaluation)

            dtype = next(model.parameters()).dtype
            call = Call(steps=steps, dtype=dtype, timestep=lambda: 1000 * ramp[place[0]])
            with (
                peers.diffusers_cache(part, config(call), sigmas=ramp, before=told) as around,
                driven(model, around, steps),
            ):
                yield Attached(sampler=sampler)

        return attached


def masked(row: Row, *, blocks: int, threshold: float) -> dict[str, Any]:
    """Return fields of cache-dit's configuration: a mask of evaluations, `blocks` always computed.

    Args:
        row: 1 compute, 0 skip where the difference allows it.
        blocks: How many of the first blocks are always computed.
        threshold: Its `residual_diff_threshold`.
    """
    return {
        "Fn_compute_blocks": blocks,
        "Bn_compute_blocks": 0,
        "residual_diff_threshold": threshold,
        "max_warmup_steps": 0,
        "steps_computation_mask": list(row),
        "steps_computation_policy": "dynamic",
    }
