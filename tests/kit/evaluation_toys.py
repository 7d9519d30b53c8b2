"""Three modalities of toy models for the evaluation across modalities, and a script for them.

    python -m kit.evaluation_toys --output FOLDER ...

Each model is a stack of small layers, each a site, that Euler's method samples.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
import torch
from kit.pages import picture
from smoothcache_core import Adapter, PatternAdapter, Report, Sampler, SitePattern
from smoothcache_core.cli.modality import Demo, Judging, Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.reports import folder
from smoothcache_core.reports.page import Comparison, Variant
from smoothcache_core.reports.style import new_figure
from smoothcache_core.sampling import ConditionedSampler
from torch import Tensor, nn

from tools.evaluate import cli, settings
from tools.evaluate.modalities import Kind, Size

WIDTH, STEPS = 24, 10
SITES = PatternAdapter(name="stack", patterns=(SitePattern("blocks.*", "layer"),))
WHOLE = PatternAdapter(name="whole", patterns=())


class Stack(nn.Module):
    """Moves its latent a little, by layers that are nearly the same from step to step."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.requires_grad_(False)

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        hidden = hidden_states
        for block in self.blocks:
            hidden = hidden + block(hidden).tanh() * (0.5 + timestep)
        return hidden


@dataclass(frozen=True, kw_only=True)
class Stacked(ConditionedSampler):
    """Samples a stack from the noise of a seed, each sample moved by its condition.

    Attributes:
        stack: The model.
        slow: Seconds that every run takes at least, so that one can be broken off.
    """

    stack: Stack
    slow: float = 0.0

    def plain_sampler(self) -> Sampler:
        known: Adapter = WHOLE if self.given_adapter == "whole" else SITES
        return Sampler(
            model=self.stack,
            adapter=known,
            run=self._latents,
            decode=lambda latents: latents,
            solver="euler",
            samples=self.samples,
        )

    def _latents(self, seed: int) -> Tensor:
        time.sleep(self.slow)
        moved = torch.tensor([float(each) for each in self.conditions_of(seed)])[:, None]
        latent = torch.randn(self.samples, WIDTH, generator=torch.Generator().manual_seed(seed))
        latent = latent + 0.1 * moved
        for step in range(self.steps):
            latent = latent - self.stack(latent, 1 - step / self.steps) / self.steps
        return latent

    @property
    def evaluations(self) -> int:
        return self.steps

    def label(self, condition: Any) -> str:
        return f"number {condition}"

    def show_progress(self, shown: bool) -> None:
        del shown


@dataclass(frozen=True, kw_only=True)
class StackSource(Source):
    """Which stack to sample: `"stack"`, or the number of another one."""

    SHIPPED: ClassVar[tuple[str, ...]] = ("stack",)
    STEPS: ClassVar[int] = STEPS
    SLOW: ClassVar[float] = 0.0

    model: str = "stack"

    def sampler(self, *, steps: int) -> Stacked:
        seed = 0 if self.shipped else int(self.model)
        return Stacked(
            stack=Stack(seed),
            conditions=range(3),
            steps=steps,
            samples=self.run_samples,
            given_adapter=self.adapter,
            slow=self.SLOW,
        )


def _judging(source: Source, sampler: Stacked, seeds: Sequence[int]) -> Judging:
    del source, sampler, seeds

    def drawn(report: Report, title: str) -> dict[str, Any]:
        figure = new_figure(2.0, 1.0)
        figure.text(0.1, 0.5, f"{title}: {len(report.rows)}")
        return {"samples.png": figure}

    def compared(report: Report) -> list[Comparison]:
        plain, *others = (row.policy for row in report.rows)
        variants = [Variant(policy=name, media=picture(name)) for name in others]
        return [Comparison(caption="a toy", plain=picture(plain), variants=variants)]

    return Judging(
        metrics={"l1": lambda plain, other: (plain - other).abs().mean(dim=1)},
        summaries={"mean": lambda samples: float(samples.mean())},
        about="\nToys.\n",
        columns=(),
        shown=1,
        pictures=drawn,
        comparisons=compared,
    )


STACKS = Modality(
    command="smoothcache-stacks",
    models="stacks",
    units="stacks",
    source=StackSource,
    demo=Demo(opening="", title="Stacks", legend="", files={}, samples=2),
    judging=_judging,
    save=lambda *_: [],
)


def kinds(**values: str) -> dict[str, Kind]:
    """Return the modalities; `values` are other places of what their command lines are about."""
    size = Size(samples=2, seeds=(100, 101), calibration_samples=2)
    return {
        name: Kind(
            name=name,
            package="smoothcache-core",
            value=values.get(name, "kit.evaluation_toys:STACKS"),
            quick=size,
            full=size,
            extras={"smoothcache_absent": "Sounds are silent."} if name == "audio" else {},
        )
        for name in ("image", "video", "audio")
    }


def use_toys(patch: pytest.MonkeyPatch) -> None:
    """Evaluate toys, and draw nothing: drawing takes five times as long as all the rest."""
    patch.setattr(settings, "KINDS", MappingProxyType(kinds()))
    patch.setattr(folder, "png", lambda figure: b"a picture")


def main() -> None:
    """Evaluate toys by the options that were typed, slowly."""
    use_toys(pytest.MonkeyPatch())
    StackSource.SLOW = 0.02
    cli.main()


if __name__ == "__main__":
    main()
