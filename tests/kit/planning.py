"""Small denoisers and samplers whose runs are known exactly, for what is planned on whole runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from smoothcache_core import Adapter, PatternAdapter, Sampler, Schedule, SitePattern, cached
from smoothcache_core.metrics import relative_l2
from torch import Tensor, nn

Passes = Literal["one", "batched", "sequential"]
PAIR = ("cond", "uncond")
SHAPE = (3, 4)


class Wave(nn.Module):
    """A curved denoiser of any timestep, without sites; rows of another label are another wave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, hidden_states: Tensor, timestep: Any, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        time = float(torch.as_tensor(timestep).reshape(-1)[0]) / 1000
        shift = (
            torch.zeros(())
            if label is None
            else label.reshape(-1, *[1] * (hidden_states.dim() - 1))
        )
        wave = torch.sin(2.0 * hidden_states + 5.0 * time + shift) + 0.3 * shift
        return wave.to(hidden_states)


WAVE = PatternAdapter(name="wave", patterns=())


class Part(nn.Module):
    """Gives slope x + offset, both by evaluation and label; a linear layer does the work."""

    def __init__(self, slopes: Tensor, offsets: Tensor, bend: float) -> None:
        super().__init__()
        self.linear = nn.Linear(offsets.shape[-1], offsets.shape[-1], bias=False)
        nn.init.eye_(self.linear.weight.requires_grad_(False))
        self.slopes, self.offsets, self.bend = slopes, offsets, bend
        self.calls = 0

    def forward(self, hidden: Tensor, index: int, label: Tensor) -> Tensor:
        self.calls += 1
        slope = self.slopes[index, label].reshape(-1, 1, 1)
        return self.linear(hidden) * slope + self.bend * hidden.sin() + self.offsets[index, label]


class Mixture(nn.Module):
    """A denoiser that is affine in its latent: a weighted sum of its sites.

    The output at evaluation i for label p is the sum over sites s of
    gains[s] (slopes[s, i, p] x + offsets[s, i, p]).

    Args:
        gains: One for each site.
        evaluations: Evaluations of a run; their timesteps are 0, 1, 2, ...
        bend: How far from affine the sites are.
        seed: Of what is drawn.
    """

    def __init__(
        self, gains: Sequence[float], evaluations: int, *, bend: float = 0.0, seed: int = 1
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(len(gains), evaluations, 2, 2, generator=generator).cumsum(dim=1) / 8
        shift = torch.randn(len(gains), evaluations, 2, *SHAPE, generator=generator)
        offsets = torch.randn(len(gains), 1, 2, *SHAPE, generator=generator) + shift.cumsum(1) / 6
        self.gains = tuple(gains)
        self.slopes = 0.2 * drawn[..., 0]
        self.parts = nn.ModuleList(
            Part(slopes, offset, bend) for slopes, offset in zip(self.slopes, offsets, strict=True)
        )
        self.calls = 0

    def forward(self, hidden_states: Tensor, timestep: int, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        if label is None:
            label = torch.zeros(len(hidden_states), dtype=torch.long)
        outputs = [part(hidden_states, int(timestep), label) for part in self.parts]
        return torch.stack([g * o for g, o in zip(self.gains, outputs, strict=True)]).sum(dim=0)

    def forget(self) -> None:
        """Forget how often it was called."""
        for module in (self, *self.parts):
            vars(module)["calls"] = 0

    def feedback(self) -> Tensor:
        """Return the change of the output per change of the latent, (evaluations, 2)."""
        return torch.einsum("s,sip->ip", torch.tensor(self.gains), self.slopes)


MIXTURE = PatternAdapter(
    name="mixture", patterns=(SitePattern("parts.*", "part"),), guidance="cond-first"
)


class OneStep:
    """A solver of the simplest kind: the latent less a number of outputs."""

    def __init__(self, steps: int) -> None:
        self.sizes = [0.1 + 0.05 * ((3 * i) % 4) for i in range(steps)]
        self.timesteps = torch.arange(steps)

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        return (latent - self.sizes[int(timestep)] * output,)


class Noisy(OneStep):
    """Adds noise at every step, the same in every run."""

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        (found,) = super().step(output, timestep, latent)
        generator = torch.Generator().manual_seed(1000 + int(timestep))  # not that of a latent
        return (found + 0.5 * torch.randn(found.shape, generator=generator),)


@dataclass
class ToySampler:
    """Samples by a solver, with guidance in one call or in two.

    Attributes:
        model: The denoiser.
        solver: Makes the solver of every run.
        passes: Conditioning passes: one, both in a batch, or both one after the other.
        scale: Of guidance.
        samples: In the batch of a run.
        random: Whether the solver draws noise, from the seed.
        dtype: Of the latent.
        runs: Runs begun.
    """

    model: Callable[..., Any]
    solver: Callable[[], Any]
    passes: Passes = "one"
    scale: float = 2.5
    samples: int = 2
    random: bool = False
    dtype: torch.dtype = torch.float32
    shape: tuple[int, ...] = SHAPE
    runs: int = field(default=0, init=False)

    @property
    def branches(self) -> tuple[str, ...]:
        return PAIR if self.passes == "sequential" else ()

    def value(self, adapter: Adapter = MIXTURE, **changes: Any) -> Sampler:
        """Return what the library takes of it."""
        known = {"model": self.model, "run": self, "branches": self.branches}
        return Sampler(**{"adapter": adapter, "samples": self.samples, **known, **changes})

    def __call__(self, seed: int) -> Tensor:
        self.runs += 1
        solver = self.solver()
        generator = torch.Generator().manual_seed(seed)
        extra = {"generator": generator} if self.random else {}
        latent = torch.randn(self.samples, *self.shape, generator=generator).to(self.dtype)
        latent = latent * float(getattr(solver, "init_noise_sigma", 1.0))
        scaled = getattr(solver, "scale_model_input", lambda latent, _: latent)
        for timestep in solver.timesteps:
            output = self.guided(scaled(latent, timestep), timestep)
            latent = solver.step(output, timestep, latent, **extra)[0]
        return latent

    def without_latent(self, seed: int) -> None:
        """Sample, and do not tell the final latent."""
        self(seed)

    def guided(self, latent: Tensor, timestep: Any) -> Tensor:
        zeros = torch.zeros(len(latent), dtype=torch.long)
        if self.passes == "one":
            return self.model(latent, timestep, zeros)
        if self.passes == "batched":
            both = self.model(torch.cat((latent, latent)), timestep, torch.cat((zeros, zeros + 1)))
            one, other = both.chunk(2)
        else:
            one = self.model(latent, timestep, zeros)
            other = self.model(latent, timestep, zeros + 1)
        return other + self.scale * (one - other)


def error_of(
    model: Mixture, sampler: ToySampler, seeds: Sequence[int], schedule: Schedule
) -> float:
    """Return the mean error of a schedule over the samples of all seeds, by plain use of it."""
    plain = [sampler(seed) for seed in seeds]
    with cached(model, MIXTURE, schedule, branches=sampler.branches):
        others = [sampler(seed) for seed in seeds]
    pairs = zip(plain, others, strict=True)
    return float(torch.cat([relative_l2(a, b) for a, b in pairs]).mean())
