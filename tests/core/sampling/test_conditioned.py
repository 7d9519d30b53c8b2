from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from kit.planning import MIXTURE, Mixture
from smoothcache_core import Sampler
from smoothcache_core.errors import SamplerError
from smoothcache_core.sampling.conditioned import ConditionedSampler
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Letters(ConditionedSampler):
    """Gives a latent of its settings: for every sample its condition, the steps and the seed."""

    def latents(self, seed: int) -> Tensor:
        rows = [(ord(each), self.steps, seed) for each in self.conditions_of(seed)]
        return torch.tensor(rows, dtype=torch.float32)

    def plain_sampler(self) -> Sampler:
        return Sampler(
            model=Mixture([1.0], 3),
            adapter=MIXTURE,
            run=self.latents,
            decode=lambda latents: latents[:, 0],
            solver=f"letters({self.guidance})",
            samples=self.samples,
        )

    @property
    def evaluations(self) -> int:
        return self.steps

    def label(self, condition: Any) -> str:
        return str(condition)

    def show_progress(self, shown: bool) -> None:
        del shown


def test_conditions_are_taken_in_turn_over_all_samples():
    sampler = Letters(conditions="abc", steps=1, samples=2)
    assert [sampler.conditions_of(seed) for seed in range(3)] == [
        ["a", "b"],
        ["c", "a"],
        ["b", "c"],
    ]


def test_everything_follows_when_settings_are_replaced():
    sampler = Letters(conditions="abc", steps=1, samples=2)
    other = replace(sampler, steps=5, samples=3, guidance=2.0)
    assert sampler.final_latent(1).tolist() == [[99.0, 1.0, 1.0], [97.0, 1.0, 1.0]]
    assert other(1).tolist() == [[97.0, 5.0, 1.0], [98.0, 5.0, 1.0], [99.0, 5.0, 1.0]]
    assert other.decode(other(1)).tolist() == [97.0, 98.0, 99.0]
    assert (sampler.solver, other.solver) == ("letters(None)", "letters(2.0)")
    assert (other.samples, other.branches) == (3, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditions": ()}, "nothing to sample"),
        ({"steps": 0}, "a run has at least 1 step, got steps=0"),
        ({"samples": 0}, "a run has at least 1 sample, got samples=0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(SamplerError, match=message):
        Letters(**{"conditions": "a", "steps": 2, **settings})
