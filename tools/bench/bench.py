"""What the quality benchmark samples: a shipped model, from seeds, under a policy."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from smoothcache_core import Adapter, Calibration, calibrate, verify
from smoothcache_core.schedule.provenance import Aim
from torch import Tensor

from tools.bench.counting import counting, macs_by_leaf
from tools.bench.models.model import Modality, Solver
from tools.bench.policies import Attach, plain

CALIBRATION_SEED = 0
_MAX_LAG = 10  # evaluations: the longest reuse that policies of records use


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a sampler.

    Attributes:
        latents: What the solver ended with, (samples, ...), on the CPU.
        seconds: Time of the call.
        macs: MACs counted.
        bytes_peak: Most bytes that this library's cache held, if it was this library's.
    """

    latents: Tensor
    seconds: float
    macs: int
    bytes_peak: int | None = None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model, its solver, and what its layers cost.

    Attributes:
        modality: What is special about its modality.
        model: Name of the model.
        sampler: Samples it, one sample per call.
        macs: See `counting`.
        plain_macs: MACs of a plain run of one sample.
    """

    modality: Modality
    model: str
    sampler: Any
    macs: Mapping[str, int]
    plain_macs: int

    def of_batch(self, samples: int) -> Any:
        """Return a sampler of `samples` per call, of a denoiser of its own."""
        return self.modality.owned(self.sampler, samples)

    def run(self, attach: Attach, *, samples: int, seed: int) -> Run:
        """Sample once under a policy."""
        sampler = self.of_batch(samples)
        with counting(sampler.model, self.macs) as counted, attach(sampler) as attached:
            start = time.perf_counter()
            latents = attached.sampler(seed).cpu()
            seconds = time.perf_counter() - start
        return Run(
            latents=latents,
            seconds=seconds,
            macs=counted.macs,
            bytes_peak=None if attached.stats is None else attached.stats.bytes_peak,
        )

    def compute(self, run: Run) -> float:
        """Return MACs counted over those of the plain run of as many samples."""
        return run.macs / (self.plain_macs * len(run.latents))

    @property
    def solver(self) -> Solver:
        """The solver."""
        return self.modality.solver(self.sampler)


def load_bench(modality: Modality, model: str, solver: str, *, steps: int, device: str) -> Bench:
    """Load a model in float32.

    Raises:
        ValueError: There is no such solver.
        SmoothCacheError: There is no such model, or it cannot have the solver.
    """
    sampler: Any = modality.load(model, solver, steps, device)
    bench = Bench(modality=modality, model=model, sampler=sampler, macs={}, plain_macs=0)
    two = replace(bench.of_batch(1), steps=2)
    macs = macs_by_leaf(two.model, lambda: two(0))
    bench = replace(bench, macs=macs)
    return replace(bench, plain_macs=bench.run(plain, samples=1, seed=0).macs)


# ---------------------------------------------------------------------------- calibrating


def calibrated(
    bench: Bench,
    *,
    samples: int,
    adapter: Adapter | None = None,
    checkpoint: Path | None = None,
    reference: Aim = "plain",
    progress: bool = True,
) -> Calibration:
    """Calibrate on the calibration seed as the commands do; all benchmarks of quality do so.

    Args:
        bench: The bench.
        samples: Samples, one batch.
        adapter: Where the sites are, if not where the sampler says.
        checkpoint: See `calibrate`.
        reference: See `calibrate`.
        progress: Show a progress bar.
    """
    sampler = bench.of_batch(samples)
    plain = replace(sampler.plain_sampler(), adapter=adapter or sampler.adapter)
    found = calibrate(
        plain,
        seeds=[CALIBRATION_SEED],
        max_lag=min(_MAX_LAG, sampler.steps - 1),
        checkpoint=checkpoint,
        reference=reference,
        progress=progress,
    )
    if found.dynamics is None or found.outcomes:
        return found
    verified = verify(plain, found, progress=progress)
    if checkpoint is not None:
        verified.save(checkpoint)  # what goes on from it need not verify again
    return verified


# ---------------------------------------------------------------------------- the exact solution


def ode_solution(bench: Bench, *, samples: int, seed: int, steps: int, folder: Path) -> Tensor:
    """Return what a solver of many steps makes of the noise of `seed`; computed once, then read.

    Args:
        bench: The bench.
        samples: Samples.
        seed: Seed of their noise.
        steps: Evaluations.
        folder: Where solutions are kept.
    """
    solver = bench.solver
    known = {
        "weights": _weights_hash(bench.sampler.model),
        "solver": dict(solver.exact_settings),
        "guidance": bench.sampler.guidance,
        "conditions": list(bench.sampler.conditions),
        "call": [samples, seed, steps],
        "torch": torch.__version__,
    }
    path = folder / f"ode-{hashlib.sha256(repr(known).encode()).hexdigest()[:16]}.pt"
    if path.exists():
        return torch.load(path)
    latents = solver.exact(bench.of_batch(samples), steps)(seed).cpu()
    save_tensors(path, latents)
    return latents


def save_tensors(path: Path, content: object) -> None:
    """Write a file in one step, so that a killed run leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


def _weights_hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
