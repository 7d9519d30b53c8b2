"""Samplers that know what their samples are asked to show."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, Self

from torch import Tensor, nn

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.errors import SamplerError
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.provenance import Setting

_LONGEST = 100
"""Characters of conditions that are kept as they are; longer ones are kept as a hash."""


@dataclass(frozen=True, kw_only=True)
class ConditionedSampler(Sampler, ABC):
    """A sampler whose n-th sample has condition n, counted round; n = seed x samples + row.

    A modality has a subclass, with what else its models can be told; `plain_sampler` says what that
    makes of the fields of `Sampler`, all of which but `samples` follow from it. So `replace` of
    dataclasses gives the sampler of other steps, conditions or samples.

    Attributes:
        conditions: What to show: class numbers, prompts, or what else the model takes; at least 1.
        steps: Steps of the solver, at least 1.
        guidance: Strength of classifier-free guidance; None is the model's own.
        given_adapter: An adapter, or what is said of it: the name of a known one, `"auto"`,
            `"structure"` or `"whole"`; None is `"auto"`.
        decode: Turns final latents (n, ...) into samples, (n, ...).

    Raises:
        SamplerError: There is nothing to sample, or less than a step or a sample is asked for.
    """

    conditions: Sequence[Any]
    steps: int
    guidance: float | None = None
    given_adapter: Adapter | str | None = None
    model: nn.Module = field(init=False, repr=False, compare=False)
    adapter: Adapter = field(init=False, repr=False, compare=False)
    run: Callable[[int], object] = field(init=False, repr=False, compare=False)
    decode: Callable[[Tensor], Tensor] = field(init=False, repr=False, compare=False)
    scheduler: Scheduler | None = field(init=False, repr=False, compare=False)
    solver: str | None = field(init=False, repr=False, compare=False)
    branches: tuple[str, ...] = field(init=False, repr=False, compare=False)
    around: Callable[[], AbstractContextManager[object]] = field(
        init=False, repr=False, compare=False
    )
    part: LatentPart | None = field(init=False, repr=False, compare=False)
    finer: Callable[[int, int], object] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.conditions:
            raise SamplerError("there is nothing to sample: give class numbers or prompts")
        if self.steps < 1:
            raise SamplerError(f"a run has at least 1 step, got steps={self.steps}")
        plain = self.plain_sampler()
        for each in fields(Sampler):
            object.__setattr__(self, each.name, getattr(plain, each.name))
        super().__post_init__()

    def __call__(self, seed: int) -> Tensor:
        """Return the final latent of a seed, (samples, ...); see `final_latent`."""
        return self.final_latent(seed)

    @property
    def settings(self) -> dict[str, Setting]:
        """Everything that it was told, by name: its conditions, steps, guidance and so on."""
        names = [each.name for each in fields(self) if each.init and each.name != "given_adapter"]
        told = {name: getattr(self, name) for name in names}
        known = {name: value for name, value in told.items() if _is_plain(value)}
        return {**known, "conditions": _summary(self.conditions), **super().settings}

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return the same sampler with another adapter; see `Sampler.with_adapter`.

        Args:
            adapter: What describes the model's sites and arguments.
        """
        return replace(self, given_adapter=adapter)

    def conditions_of(self, seed: int) -> list[Any]:
        """Return the conditions of the samples of `seed`.

        Args:
            seed: Seed of a run, at least 0.
        """
        first = seed * self.samples
        numbers = range(first, first + self.samples)
        return [self.conditions[n % len(self.conditions)] for n in numbers]

    @abstractmethod
    def plain_sampler(self) -> Sampler:
        """Return the sampler without its conditions, with `decode`."""

    @property
    @abstractmethod
    def evaluations(self) -> int | None:
        """Evaluations of one run, if that is known before."""

    @abstractmethod
    def label(self, condition: Any) -> str:
        """Return the name of a condition, short enough for a caption or a file name.

        Args:
            condition: One of `conditions`.
        """

    @abstractmethod
    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none.

        Args:
            shown: Whether to show it.
        """


def _is_plain(value: object) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)
    return (value is None or isinstance(value, bool | int | float | str)) and finite


def _summary(conditions: Sequence[Any]) -> str:
    text = ", ".join(map(str, conditions))
    if len(text) <= _LONGEST:
        return text
    return f"{len(conditions)} of hash {sha256(text.encode()).hexdigest()[:16]}"
