"""A denoiser of which one part is worth computing and the other is not, and its sampler."""

from pathlib import Path
from typing import Any

import torch
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.routing import RouterSettings, train_router
from torch import Tensor, distributed, nn

STEPS = 6
ADAPTER = PatternAdapter(
    name="drift",
    patterns=(SitePattern("still", "still"), SitePattern("lively", "lively")),
    latent="x",
    timestep="t",
)


class Part(nn.Module):
    """Adds something that depends on the timestep as much as it is told to."""

    def __init__(self, swing: float) -> None:
        super().__init__()
        self.swing = swing
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.linear(x) * 0.01 + self.swing * t + 1.0


class Drifting(nn.Module):
    """One part gives nearly the same at every evaluation, the other does not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.still, self.lively = Part(0.0), Part(5.0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x + self.still(x, t) + self.lively(x, t)


def sampler_of(model: nn.Module, *, mode: Any = torch.no_grad, **given: Any) -> Sampler:
    @mode()
    def run(seed: int) -> Tensor:
        latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for step in range(STEPS):
            latent = latent - model(latent, torch.tensor(1 - step / STEPS)) / STEPS
        return latent

    return Sampler(model=model, run=run, samples=2, solver="euler", **{"adapter": ADAPTER, **given})


def train_in_a_group(*, file: Path, rank: int, world: int) -> list[list[float]]:
    """Train as one of several ranks; return the logits."""
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=world)
    try:
        settings = RouterSettings(updates=12, proxy="none", learning_rate=0.1)
        made = train_router(sampler_of(Drifting()), settings, evaluations=STEPS, progress=False)
        return [parameter.tolist() for parameter in made.parameters()]
    finally:
        distributed.destroy_process_group()
