"""Good files to begin with: a tiny denoiser, what it is calibrated to, and schedules of it."""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    calibrate,
    plan,
)
from smoothcache_core.errors import SmoothCacheWarning
from smoothcache_core.schedule import Fill
from smoothcache_core.sources import smooth
from torch import Tensor, nn

ADAPTER = PatternAdapter(
    name="tiny",
    patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.mlp", "mlp")),
    guidance="cond-first",
)


STEPS = 6


CORRECTED = Fill(terms={0: (0.9,), 2: (1.5, -0.25, -0.25), 3: (1.5, -0.5)}, inputs={2: 0.25})


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attn(hidden).tanh()
        return hidden + self.mlp(hidden).tanh()


class Tiny(nn.Module):
    """A denoiser of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(_Block() for _ in range(2))

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        hidden = hidden_states
        for block in self.blocks:
            hidden = block(hidden)
        return hidden * (0.5 + timestep)


def sampler_of(model: Tiny) -> Sampler:
    """Return Euler's method of a few steps with guidance in one batch."""

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for step in range(STEPS):
            both = model(torch.cat((latent, latent)), 1 - step / STEPS)
            one, other = both.chunk(2)
            latent = latent - (other + 1.5 * (one - other)) / STEPS
        return latent

    return Sampler(model=model, adapter=ADAPTER, run=run, solver="euler", samples=2)


@dataclass(frozen=True, kw_only=True)
class Originals:
    """Good files, as bytes."""

    schedules: tuple[bytes, ...]
    calibrations: tuple[bytes, ...]


def originals(folder: Path) -> Originals:
    """Return good files of every kind; `folder` holds them for a moment."""
    sampler = sampler_of(Tiny())
    warnings.simplefilter("ignore", SmoothCacheWarning)  # a run of so few steps gains little
    whole = calibrate(sampler, seeds=range(16), max_lag=4, progress=False)
    errors = calibrate(sampler, seeds=range(2), max_lag=2, sensitivity=0, progress=False)
    no_dynamics = replace(whole, dynamics=None, influence=None, remark="not asked for")
    return Originals(
        schedules=tuple(_schedules(whole, folder)),
        calibrations=tuple(
            known.save(folder / "file").read_bytes() for known in (whole, errors, no_dynamics)
        ),
    )


def _schedules(calibration: Calibration, folder: Path) -> list[bytes]:
    rows = {"attn": (1, 0, 1, 0), "mlp-1": (1, 1, 0, 0), "blocks.0.mlp": (1, 1, 1, 0)}
    fills = {"attn": Fill(terms={1: (0.5,), 3: (1.75, -0.75)}), "mlp-1": Fill(terms={2: (2, -1)})}
    made = [
        Schedule(evaluations=4, rows=rows, fills=fills),
        Schedule(evaluations=4, rows={"attn": (1, 0, 1, 0)}, corrected=CORRECTED),
        Schedule(evaluations=4, rows={"attn": (1, 0, 1, 0)}),
        smooth(calibration, alpha=0.5),
        *(plan(calibration, compute=0.5, target=t) for t in ("denoiser", "guidance", "site")),
    ]
    files = [schedule.save(folder / "file").read_bytes() for schedule in made]
    older = {"format": "smoothcache-schedule", "version": 2, "evaluations": 4, "fill": "reuse"}
    flat = {"attn": [1, 0, 1], "mlp-1": [1, 1, 0]}
    return [
        *files,
        json.dumps({**older, "rows": {"attn": [1, 0, 1, 0]}}).encode(),
        json.dumps(flat).encode(),
    ]
