"""What the quality benchmark samples: the shipped digits pipelines, from seeds, under a policy."""

import copy
import hashlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from _quality_count import counting, macs_by_leaf
from _sharing import sharing
from smoothcache_core import CacheStats
from smoothcache_image import load_pipeline
from smoothcache_image._loading import Solver, with_solver
from smoothcache_image._sampling import Sampler
from smoothcache_image._source import DIGITS_GUIDANCE
from torch import Tensor

CLASSES = range(10)


@dataclass(frozen=True, kw_only=True)
class Working:
    """A policy at work.

    Attributes:
        sampler: Samples by it.
        stats: What this library's cache counted.
    """

    sampler: Sampler
    stats: CacheStats | None = None


Put = Callable[[Sampler], AbstractContextManager[Working]]
"""Puts a policy on a sampler, whose denoiser is a copy that nobody else uses."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a sampler.

    Attributes:
        latents: What the solver ended with, (samples, channels, height, width), on the CPU.
        seconds: Time of the call.
        macs: MACs counted.
        bytes_peak: Most bytes that this library's cache held, if it was this library's.
    """

    latents: Tensor
    seconds: float
    macs: int
    bytes_peak: int | None = None


@contextmanager
def plain(sampler: Sampler) -> Generator[Working]:
    """Change nothing."""
    yield Working(sampler=sampler)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A pipeline, its solver, and what its layers cost.

    Attributes:
        model: Name of the model.
        sampler: Samples it, one sample per call.
        macs: See `counting`.
        plain_macs: MACs of a plain run of one sample.
    """

    model: str
    sampler: Sampler
    macs: Mapping[str, int]
    plain_macs: int

    def of_batch(self, samples: int) -> Sampler:
        """Return a sampler of `samples` per call, of a denoiser of its own."""
        pipe = copy.copy(self.sampler.pipe)
        pipe.transformer = sharing(self.sampler.pipe.transformer)
        return replace(self.sampler, pipe=pipe, batch=samples)

    def run(self, put: Put, *, samples: int, seed: int) -> Run:
        """Sample once under a policy."""
        sampler = self.of_batch(samples)
        with (
            counting(sampler.pipe.transformer, self.macs) as counted,
            put(sampler) as working,
        ):
            start = time.perf_counter()
            latents = working.sampler(seed).cpu()
            seconds = time.perf_counter() - start
        return Run(
            latents=latents,
            seconds=seconds,
            macs=counted.macs,
            bytes_peak=None if working.stats is None else working.stats.bytes_peak,
        )

    def compute(self, run: Run) -> float:
        """Return MACs counted over those of the plain run of as many samples."""
        return run.macs / (self.plain_macs * len(run.latents))

    @property
    def scheduler(self) -> Any:
        """The solver."""
        return self.sampler.pipe.scheduler

    @property
    def is_flow(self) -> bool:
        """Whether the model was trained by flow matching."""
        return "flow" in self.scheduler.config.get("prediction_type", "flow")

    @property
    def is_stochastic(self) -> bool:
        """Whether the solver adds noise, so that its samples solve no differential equation."""
        return self.scheduler.config.get("algorithm_type", "").startswith("sde")


def load_bench(model: str, solver: str, *, steps: int, device: str) -> Bench:
    """Load a pipeline in float32.

    Raises:
        ValueError: There is no such solver.
        PipelineError: There is no such model, or it cannot have the solver.
    """
    solvers: Sequence[Solver] = get_args(Solver)
    if solver not in solvers:
        raise ValueError(f"no solver is called {solver!r}; there are {list(solvers)}")
    chosen = solvers[solvers.index(solver)]
    pipe: Any = load_pipeline(model, device=device, dtype="float32", solver=chosen)
    pipe.set_progress_bar_config(disable=True)
    sampler = Sampler(pipe=pipe, conditions=CLASSES, steps=steps, guidance=DIGITS_GUIDANCE, batch=1)
    bench = Bench(model=model, sampler=sampler, macs={}, plain_macs=0)
    one = replace(bench.of_batch(1), steps=1)
    macs = macs_by_leaf(one.pipe.transformer, lambda: one(0))
    bench = replace(bench, macs=macs)
    return replace(bench, plain_macs=bench.run(plain, samples=1, seed=0).macs)


# ---------------------------------------------------------------------------- solvers


def solver_title(scheduler: Any) -> str:
    """Return the name of a solver for readers."""
    name = type(scheduler).__name__.removesuffix("Scheduler")
    if name != "DPMSolverMultistep":
        return name
    config = scheduler.config
    if config["use_flow_sigmas"] and config["solver_order"] == 1:
        return "Euler"  # what the first order is for a flow
    noise = "SDE-" if config["algorithm_type"].startswith("sde") else ""
    return f"{noise}DPM-Solver++ {config['solver_order']}M"


def other_solvers(bench: Bench) -> list[Any]:
    """Return the solvers to take fewer steps with: the bench's own, and good other ones."""
    own = bench.scheduler
    found = [own] if bench.is_flow else [own, with_solver(own, "ddim")]
    found.append(with_solver(own, "dpmsolver++"))
    return list({solver_title(scheduler): scheduler for scheduler in found}.values())


def with_spacing(scheduler: Any, spacing: str) -> Any:
    """Return a solver that takes its steps at other timesteps: leading, linspace or trailing."""
    return type(scheduler).from_config(scheduler.config, timestep_spacing=spacing)


def _exact_solver(bench: Bench) -> Any:
    """Return the solver of the exact solution.

    Of the spacings only "trailing" makes 1000 timesteps that are all different.
    """
    solver = with_solver(bench.scheduler, "dpmsolver++")
    return solver if bench.is_flow else with_spacing(solver, "trailing")


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
    scheduler = _exact_solver(bench)
    known = {
        "weights": _weights_hash(bench.sampler.pipe.transformer),
        "scheduler": {key: str(value) for key, value in sorted(scheduler.config.items())},
        "guidance": bench.sampler.guidance,
        "call": [samples, seed, steps],
        "torch": torch.__version__,
    }
    path = folder / f"ode-{hashlib.sha256(repr(known).encode()).hexdigest()[:16]}.pt"
    if path.exists():
        return torch.load(path)
    sampler = bench.of_batch(samples)
    sampler.pipe.scheduler = scheduler
    latents = replace(sampler, steps=steps)(seed).cpu()
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
