"""Two small denoisers that take turns in one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.planning import MIXTURE, Mixture, OneStep, Passes, ToySampler
from smoothcache_core import Sampler
from smoothcache_core.pipelines import Relay
from torch import Tensor

EVALUATIONS = 10
BOUNDARY = 4


@dataclass
class Turns:
    """Calls the denoiser whose turn it is: another one from each boundary on.

    Attributes:
        members: The denoisers.
        boundaries: The evaluations at which the next of them takes over, ascending.
    """

    members: Sequence[Any]
    boundaries: tuple[int, ...] = (BOUNDARY,)

    def __call__(self, latent: Tensor, timestep: Any, label: Tensor | None = None) -> Tensor:
        turn = sum(int(timestep) >= boundary for boundary in self.boundaries)
        return self.members[turn % len(self.members)](latent, timestep, label)


@dataclass
class Pair:
    """Two mixtures that take turns in a run of ten evaluations.

    Attributes:
        passes: Conditioning passes of an evaluation, see `ToySampler`.
        boundaries: Where they hand over.
    """

    passes: Passes = "one"
    boundaries: tuple[int, ...] = (BOUNDARY,)

    def __post_init__(self) -> None:
        self.members = (Mixture((1.0, 0.3), EVALUATIONS), Mixture((0.8, 0.4), EVALUATIONS, seed=7))
        self.relay = Relay(*self.members)
        self.turns = Turns(self.members, self.boundaries)
        self.run = ToySampler(self.turns, lambda: OneStep(EVALUATIONS), passes=self.passes)

    def sampler(self, **changes: Any) -> Sampler:
        """Return what the library takes of it."""
        return self.run.value(MIXTURE, **{"model": self.relay, **changes})

    def calls(self) -> tuple[int, ...]:
        """Return how often each denoiser was called, and forget it."""
        found = tuple(member.calls for member in self.members)
        for member in self.members:
            member.forget()
        return found
