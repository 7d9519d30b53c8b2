"""Ordinary differential equations whose solution is known, or near, and samplers that solve them.

A denoiser gives the velocity of its latent at time t, from 1 to 0; the sampler goes by Euler's
method in even steps, or by more of them.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from kit.planning import Passes
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from torch import Tensor, nn

RATE = 1.5
SHAPE = (4, 5)
NO_SOLUTION: dict[str, tuple[dict[str, Any], str]] = {
    "adds noise": ({"noise": 0.2}, "adds noise of its own"),
    "clips": ({"clip": 0.5}, "not affine"),
    "rescales guidance": ({"passes": "batched", "scale": 4.0, "rescale": 0.7}, "not affine"),
}
"""Settings of samplers without an exact solution to aim at, and how each is refused."""

CURVED = PatternAdapter(
    name="curved", patterns=(SitePattern("parts.*", "part"),), guidance="cond-first"
)


class Growth(nn.Module):
    """Velocity `RATE` x, so that x(t) = x(1) exp(RATE (t - 1))."""

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        del timestep
        return RATE * hidden_states

    @staticmethod
    def solution(start: Tensor, time: float) -> Tensor:
        """Return the exact latent at a time."""
        return start * math.exp(RATE * (time - 1.0))


class Bend(nn.Module):
    """One part of a curved velocity."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.linear = nn.Linear(SHAPE[-1], SHAPE[-1], bias=False)
        generator = torch.Generator().manual_seed(number)
        weight = torch.randn(SHAPE[-1], SHAPE[-1], generator=generator)
        self.linear.weight.requires_grad_(False).copy_(torch.eye(SHAPE[-1]) + 0.3 * weight)
        self.number = number

    def forward(self, hidden: Tensor, time: float, label: Tensor) -> Tensor:
        shift = 0.4 * label.reshape(-1, 1, 1)
        return torch.sin(self.linear(hidden) + (1.0 + self.number) * time + shift)


class Curved(nn.Module):
    """A velocity that is curved in latent and time; the sum of its parts, which are sites."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Bend(number) for number in range(3))
        self.calls = 0

    def forward(self, hidden_states: Tensor, timestep: Any, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        if label is None:
            label = torch.zeros(len(hidden_states))
        time = float(torch.as_tensor(timestep).reshape(-1)[0])
        return sum((part(hidden_states, time, label) for part in self.parts), torch.zeros(()))


@dataclass
class EulerSampler:
    """Goes from noise at time 1 to time 0 by Euler's method.

    Attributes:
        model: A velocity.
        steps: Steps of a run.
        passes: Conditioning passes, see `ToySampler`; those of `Growth` are one.
        scale: Of guidance.
        samples: In the batch of a run.
        noise: What is added after every step, for a stochastic solver.
        clip: Largest velocity, above which it is clipped; None for no clipping.
        rescale: Share of guidance that is rescaled to the conditional pass, as in Common Diffusion
            Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891), equation 16.
    """

    model: Any
    steps: int = 10
    passes: Passes = "one"
    scale: float = 1.5
    samples: int = 3
    noise: float = 0.0
    clip: float | None = None
    rescale: float = 0.0

    def value(self, **changes: Any) -> Sampler:
        """Return what the library takes of it."""
        known: dict[str, Any] = {"model": self.model, "run": self, "finer": self.finer}
        known |= {"samples": self.samples, "solver": "euler", "adapter": CURVED}
        if self.passes == "sequential":
            known["branches"] = ("cond", "uncond")
        return Sampler(**known | changes)

    def __call__(self, seed: int) -> Tensor:
        return self.finer(seed, 1)

    def finer(self, seed: int, factor: int) -> Tensor:
        """Return the final latent of so many times as many steps."""
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(self.samples, *SHAPE, generator=generator)
        count = factor * self.steps
        for step in range(count):
            velocity = self.velocity(latent, 1.0 - step / count)
            latent = latent - velocity.clamp(-(self.clip or math.inf), self.clip) / count
            if self.noise:
                latent = latent + self.noise * torch.randn(latent.shape, generator=generator)
        return latent

    def velocity(self, latent: Tensor, time: float) -> Tensor:
        """Return the guided velocity."""
        if isinstance(self.model, Growth):
            return self.model(latent, time)
        zeros = torch.zeros(len(latent))
        if self.passes == "one":
            return self.model(latent, time, zeros)
        if self.passes == "batched":
            both = self.model(torch.cat((latent, latent)), time, torch.cat((zeros, zeros + 1)))
            one, other = both.chunk(2)
        else:
            one, other = self.model(latent, time, zeros), self.model(latent, time, zeros + 1)
        found = other + self.scale * (one - other)
        return found * (1.0 - self.rescale + self.rescale * one.std() / found.std())
