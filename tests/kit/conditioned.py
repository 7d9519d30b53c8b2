"""Denoisers whose latent argument also holds a condition, and twins that are given it apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from kit.planning import PAIR, OneStep, Passes
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.adapters import LatentPart
from torch import Tensor, nn

SHAPE = (4, 3, 5)
CONDITIONED = PatternAdapter(
    name="conditioned", patterns=(SitePattern("blocks.*", "block"),), guidance="cond-first"
)
TWIN = PatternAdapter(
    name="twin", patterns=(SitePattern("inside.blocks.*", "block"),), guidance="cond-first"
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden).sin()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the condition stands in the latent argument.

    Attributes:
        dim: Dimension along which it is joined to what is denoised.
        size: Its indices there.
        first: Whether it comes first.
        answer: Whether the output is of the denoised part only, or of all.
    """

    dim: int = 1
    size: int = 2
    first: bool = False
    answer: Literal["part", "all"] = "part"

    @property
    def part(self) -> LatentPart:
        if self.first:
            return LatentPart(dim=self.dim, start=self.size)
        return LatentPart(dim=self.dim, start=0, stop=SHAPE[self.dim - 1])

    def joined(self, latent: Tensor, condition: Tensor) -> Tensor:
        both = (condition, latent) if self.first else (latent, condition)
        return torch.cat(both, dim=self.dim)

    def own(self, whole: Tensor) -> Tensor:
        start = self.size if self.first else 0
        return whole.narrow(self.dim, start, whole.shape[self.dim] - self.size)

    def condition(self, rows: int) -> Tensor:
        shape = [rows, *SHAPE]
        shape[self.dim] = self.size
        return torch.randn(shape, generator=torch.Generator().manual_seed(77))


class Conditioned(nn.Module):
    """Mixes a latent and its condition along the dimension where they are joined."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        torch.manual_seed(3)
        width = SHAPE[layout.dim - 1] + layout.size
        self.layout = layout
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.requires_grad_(False)

    def forward(self, hidden_states: Tensor, timestep: Any, label: Tensor) -> Tensor:
        hidden = hidden_states.movedim(self.layout.dim, -1)
        shift = label.reshape(-1, 1, 1, 1) + float(torch.as_tensor(timestep).reshape(-1)[0]) / 8
        for block in self.blocks:
            hidden = hidden + block(hidden + shift)
        output = hidden.movedim(-1, self.layout.dim) / 2
        return output if self.layout.answer == "all" else self.layout.own(output)


class Twin(nn.Module):
    """The same denoiser, which is given the latent only and knows the condition."""

    def __init__(self, inside: Conditioned, condition: Tensor) -> None:
        super().__init__()
        self.inside = inside
        self.condition = condition

    def forward(self, hidden_states: Tensor, timestep: Any, label: Tensor) -> Tensor:
        layout = self.inside.layout
        condition = conditions_of(self.condition, label)
        output = self.inside(layout.joined(hidden_states, condition), timestep, label)
        return layout.own(output) if layout.answer == "all" else output


def conditions_of(condition: Tensor, label: Tensor) -> Tensor:
    """Return the condition for conditional rows (label 0), nothing for unconditional ones."""
    repeated = condition.repeat(len(label) // len(condition), 1, 1, 1)
    return repeated * (1 - label).reshape(-1, 1, 1, 1)


@dataclass
class Conditional:
    """Samples with a condition, as image-to-video and inpainting pipelines do.

    Attributes:
        layout: Where the condition stands.
        solver: The solver of every run.
        passes: Conditioning passes: one, both in a batch, or both one after the other.
        twin: Whether the model is given the latent only.
        final: Whether the final latent holds the condition as well.
        samples: In the batch of a run.
    """

    layout: Layout
    solver: Any = field(default_factory=lambda: OneStep(8))
    passes: Passes = "one"
    twin: bool = False
    final: Literal["part", "all"] = "part"
    samples: int = 2

    def __post_init__(self) -> None:
        self.condition = self.layout.condition(self.samples)
        self.model: nn.Module = Conditioned(self.layout)
        if self.twin:
            self.model = Twin(self.model, self.condition)

    @property
    def adapter(self) -> PatternAdapter:
        return TWIN if self.twin else CONDITIONED

    @property
    def branches(self) -> tuple[str, ...]:
        return PAIR if self.passes == "sequential" else ()

    def value(self, **changes: Any) -> Sampler:
        known = {"model": self.model, "adapter": self.adapter, "run": self}
        others = {"branches": self.branches, "samples": self.samples}
        return Sampler(**{**known, **others, **changes})

    def __call__(self, seed: int) -> Tensor:
        latent = torch.randn(self.samples, *SHAPE, generator=torch.Generator().manual_seed(seed))
        for timestep in self.solver.timesteps:
            latent = self.solver.step(self.guided(latent, timestep), timestep, latent)[0]
        return self.layout.joined(latent, self.condition) if self.final == "all" else latent

    def guided(self, latent: Tensor, timestep: Any) -> Tensor:
        if self.passes == "one":
            return self.asked(latent, timestep, (0,))
        if self.passes == "batched":
            one, other = self.asked(torch.cat((latent, latent)), timestep, (0, 1)).chunk(2)
        else:
            one, other = (self.asked(latent, timestep, (label,)) for label in (0, 1))
        return other + 1.5 * (one - other)

    def asked(self, latent: Tensor, timestep: Any, labels: Sequence[int]) -> Tensor:
        label = torch.tensor(labels).repeat_interleave(self.samples)
        if self.twin:
            return self.model(latent, timestep, label)
        given = self.layout.joined(latent, conditions_of(self.condition, label))
        output = self.model(given, timestep, label)
        return output if self.layout.answer == "part" else self.layout.own(output)
