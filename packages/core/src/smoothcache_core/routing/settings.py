"""How routers are trained."""

from dataclasses import dataclass
from typing import Literal

from smoothcache_core.errors import RouterError

Proxy = Literal["leave-one-out", "cumulative", "none"]
"""How much an evaluation's error matters: by the change of the final sample where reuse is switched
off at that evaluation alone (the paper of HarmoniCa), where reuse is switched on up to it
(its code), or not weighed at all (Learning-to-Cache)."""

Decides = Literal["all", "alternate"]
"""Where routers decide: at all evaluations but the first, or at every other one."""


Trains = Literal["samples", "data"]
"""What teacher and student answer: latents of the model's own samples (HarmoniCa), or data that is
noised (Learning-to-Cache)."""


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """Settings of a training.

    Attributes:
        updates: Updates of routers, at least 1; exactly so many are made.
        learning_rate: Of AdamW without weight decay, above 0.
        sparsity: Weight of the sum of scores in the loss, at least 0: the larger, the less is
            computed. Errors are relative and weights have a mean of 1, so that one value does for
            different models.
        threshold: Score above which an output is computed, in [0, 1).
        proxy: How evaluations are weighed against each other.
        refresh: Updates between two measurements of these weights, at least 1.
        decides: Where routers decide.
        straight_through: Whether outputs are reused or computed in training as they will be, with
            the gradient of the score, in place of being mixed by it.
        on: What is answered in training; data is given to `train_router`.
        seed: Seed of the first trajectory and of the routers, at least 0; later trajectories take
            the seeds that follow.

    Raises:
        RouterError: A setting is out of range.
    """

    updates: int = 2000
    learning_rate: float = 0.01
    sparsity: float = 1e-3
    threshold: float = 0.1
    proxy: Proxy = "leave-one-out"
    refresh: int = 500
    decides: Decides = "all"
    straight_through: bool = False
    on: Trains = "samples"
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "updates is at least 1": self.updates < 1,
            "learning_rate is above 0": self.learning_rate <= 0.0,
            "sparsity is at least 0": self.sparsity < 0.0,
            "threshold is in [0, 1)": not 0.0 <= self.threshold < 1.0,
            "refresh is at least 1": self.refresh < 1,
            "seed is at least 0": self.seed < 0,
        }
        said = [rule for rule, broken in wrong.items() if broken]
        if said:
            raise RouterError(f"{'; '.join(said)}: got {self}")


HARMONICA = RouterSettings(updates=20000)
"""HarmoniCa as published for DiT-XL/2: 2000 trajectories of 10 evaluations, weights measured anew
every 500 updates, AdamW at 0.01. Its sparsity, 7e-8, is for errors that are not relative."""

LEARNING_TO_CACHE = RouterSettings(
    updates=50000, learning_rate=1e-3, proxy="none", decides="alternate", on="data"
)
"""Learning-to-Cache as published for DiT-XL/2 and 20 evaluations. Its sparsity, 5e-6, is for errors
that are not relative. With `on="samples"` it needs no data."""
