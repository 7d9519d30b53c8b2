"""Is a trained router better than a rule or a plan, at the compute that it comes to?

    python -m tools.bench routers image

Trains routers of a shipped model as HarmoniCa and Learning-to-Cache do, then compares each
with SmoothCache's rule, FORA, fewer steps and plans of this library at its own compute, cuts all
from their scores to what FORA computes at interval 2, and times an update beside the passes that it
is made of. Writes a record into benchmarks/.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from smoothcache_core import Calibration, plan
from smoothcache_core.errors import RouterError, ScheduleError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.routing import (
    HARMONICA,
    LEARNING_TO_CACHE,
    Routers,
    RouterSettings,
    train_router,
)
from smoothcache_core.routing.settings import Proxy
from smoothcache_core.sources.interval import interval_of
from torch import Tensor

from tools.bench.baselines.ours import scheduled
from tools.bench.bench import CALIBRATION_SEED, Bench, calibrated, load_bench
from tools.bench.models.model import Modality
from tools.bench.policies import Attach, fewer_steps, plain
from tools.bench.records import Record, Row, new_record

NOTES = (
    "rel_l2 is the relative L2 distance of the final latents from the plain run's, mean over all "
    "samples of the evaluation seeds, which are none of those trained or calibrated with.",
    "harmonica and learning-to-cache are routers trained here along the model's own samples, each "
    "a row per evaluation and part; the others are made for the compute that the router above them "
    "came to.",
    "cut at: by the smallest threshold of the router's scores that computes no more than FORA at "
    "interval 2, in place of the threshold 0.1 of both papers.",
    "seconds of a router are those of its training, of a plan those of calibrating and planning.",
    "update is the median time of an update over the median of teacher's forward, student's "
    "forward and its backward, measured on the same inputs.",
)
TARGETS = ("smooth", "interval", "site", "auto")
TRAINED_FROM = 50_000
"""Seed of the first trajectory, far from those of calibrations and evaluations."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the study.

    Attributes:
        model: Name of the model.
        solver: Its solver.
        steps: Steps of the solver.
        updates: Updates of HarmoniCa's router; Learning-to-Cache's, which decides at every other
            evaluation, makes half as many.
        learning_rate: Of the routers; ten times the published one, for a tenth of the updates.
        proxy: How HarmoniCa weighs evaluations; see `RouterSettings`.
        batch: Samples of a trajectory.
        sparsities: Weights of the scores' sum in the loss; a router is trained for each.
        samples: Samples of each evaluation seed.
        seeds: Evaluation seeds.
        calibration_samples: Samples to calibrate with, one batch.
        progress: Show progress bars.
    """

    model: str = "digits"
    solver: str = "ddim"
    steps: int = 20
    updates: int = 2000
    learning_rate: float = 0.1
    proxy: Proxy = HARMONICA.proxy
    batch: int = 8
    sparsities: Annotated[Sequence[float], Parameter(name="--sparsity")] = (1e-3, 1e-4)
    samples: int = 20
    seeds: Annotated[Sequence[int], Parameter(name="--seed")] = (1000, 2000, 3000)
    calibration_samples: int = 10
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """Settings on moving digits.

    Attributes:
        model: moving-digits, or a folder.
        solver: The model's own.
        steps: Steps of the solver.
        updates: Updates of HarmoniCa's router; Learning-to-Cache's, which decides at every other
            evaluation, makes half as many.
        batch: Samples of a trajectory.
        sparsities: Weights of the scores' sum in the loss; a router is trained for each.
        samples: Samples of each evaluation seed.
    """

    model: str = "moving-digits"
    solver: str = "default"
    updates: int = 1000
    batch: int = 2
    sparsities: Annotated[Sequence[float], Parameter(name="--sparsity")] = (1e-3,)
    samples: int = 6


@dataclass(frozen=True, kw_only=True)
class AudioSettings(Settings):
    """Settings on spoken digits.

    Attributes:
        model: spoken-digits, or a folder.
        solver: A deterministic sampler of k-diffusion.
        updates: Updates of HarmoniCa's router; Learning-to-Cache's, which decides at every other
            evaluation, makes half as many.
        batch: Samples of a trajectory.
        sparsities: Weights of the scores' sum in the loss; a router is trained for each.
        samples: Samples of each evaluation seed.
    """

    model: str = "spoken-digits"
    solver: str = "dpmpp-2m"
    updates: int = 1000
    batch: int = 4
    sparsities: Annotated[Sequence[float], Parameter(name="--sparsity")] = (1e-3,)
    samples: int = 10


def record(modality: Modality, settings: Settings) -> Record:
    """Train, compare, and return the record."""
    bench = load_bench(
        modality, settings.model, settings.solver, steps=settings.steps, device="cpu"
    )
    judge = _Judge(settings, bench)
    start = time.monotonic()
    calibration = calibrated(
        bench, samples=settings.calibration_samples, progress=settings.progress
    )
    seconds = time.monotonic() - start
    rows: list[Row] = []
    cuts: list[Row] = []
    refused: list[Row] = []
    fora = interval_of(calibration, 2).compute_fraction()
    for name, published in (("harmonica", HARMONICA), ("learning-to-cache", LEARNING_TO_CACHE)):
        for sparsity in settings.sparsities:
            chosen = replace(
                published,
                on="samples",  # there is data of one modality only
                updates=settings.updates // _share(published),
                learning_rate=settings.learning_rate,
                sparsity=sparsity,
                refresh=max(settings.updates // 4, 1),
                seed=TRAINED_FROM,
                proxy=settings.proxy if published is HARMONICA else published.proxy,
            )
            routers, trained = _trained(settings, bench, chosen)
            about, spent = f"sparsity {sparsity:g}", {"seconds": trained}
            own = routers.schedule(threshold=chosen.threshold)
            row = judge.row(name, about, scheduled(own))
            rows.append(row | spent)
            more, missed = _others(judge, calibration, row["compute"], seconds)
            rows += more
            refused += missed
            about += f", cut at {fora:.3f}"
            try:
                cut = routers.schedule(compute=fora, cost=calibration.cost)
            except RouterError as error:
                refused.append({"policy": name, "setting": about, "reason": str(error)})
                continue
            cuts.append(judge.row(name, about, scheduled(cut)) | spent)
    more, missed = _others(judge, calibration, fora, seconds)
    rows += [*cuts, *more]
    refused += missed
    rows.append({"policy": "update", "ratio": _ratio_of_update(settings, bench)})
    return new_record(
        what="routers",
        modality=modality.name,
        question="Is a trained router better than a rule or a plan, at the compute it comes to?",
        packages=modality.packages,
        seeds={
            "training": [TRAINED_FROM],
            "calibration": [CALIBRATION_SEED],
            "evaluation": list(settings.seeds),
        },
        settings={
            "model": settings.model,
            "solver": settings.solver,
            "evaluations": settings.steps,
            "updates": f"{settings.updates} of harmonica, half as many of learning-to-cache",
            "proxy of harmonica": settings.proxy,
            "batch": settings.batch,
            "samples": f"{settings.samples} of each evaluation seed",
            "calibration samples": settings.calibration_samples,
        },
        rows=rows,
        refused=refused,
        notes=NOTES,
    )


def _share(published: RouterSettings) -> int:
    """Return by what updates are divided, so that all evaluations decided on get as many."""
    return 2 if published.decides == "alternate" else 1


def _trained(settings: Settings, bench: Bench, chosen: RouterSettings) -> tuple[Routers, float]:
    """Return routers, and the seconds of their training."""
    sampler = bench.of_batch(settings.batch)
    start = time.monotonic()
    routers = train_router(sampler, chosen, evaluations=settings.steps, progress=settings.progress)
    return routers, time.monotonic() - start


def _others(
    judge: "_Judge", calibration: Calibration, compute: float, seconds: float
) -> tuple[list[Row], list[Row]]:
    """Return what else there is at a compute fraction, and what cannot be had there."""
    rows: list[Row] = []
    refused: list[Row] = []
    at = f"at {compute:.3f}"
    for target in TARGETS:
        start = time.monotonic()
        try:
            schedule = plan(calibration, compute=compute, target=target)
        except ScheduleError as error:
            refused.append({"policy": target, "setting": at, "reason": str(error)})
            continue
        spent = seconds + time.monotonic() - start
        rows.append(judge.row(target, at, scheduled(schedule)) | {"seconds": spent})
    steps = max(round(compute * calibration.evaluations), 1)
    fewer = fewer_steps(lambda sampler, count: replace(sampler, steps=count), steps)
    return [*rows, judge.row("fewer steps", f"{steps}", fewer)], refused


class _Judge:
    """Compares samples with those of the plain runs."""

    def __init__(self, settings: Settings, bench: Bench) -> None:
        self._settings, self._bench = settings, bench
        self._plain = [self._sampled(plain, seed)[0] for seed in settings.seeds]

    def _sampled(self, attach: Attach, seed: int) -> tuple[Tensor, float]:
        with torch.no_grad():
            run = self._bench.run(attach, samples=self._settings.samples, seed=seed)
        return run.latents, self._bench.compute(run)

    def row(self, policy: str, setting: str, attach: Attach) -> dict[str, Any]:
        """Sample by a policy, and compare."""
        found = [self._sampled(attach, seed) for seed in self._settings.seeds]
        pairs = zip(self._plain, found, strict=True)
        means = [float(relative_l2(one, other).mean()) for one, (other, _) in pairs]
        return {
            "policy": policy,
            "setting": setting,
            "compute": statistics.fmean(compute for _, compute in found),
            "rel_l2": statistics.fmean(means),
            "rel_l2_spread": statistics.stdev(means) if len(means) > 1 else 0.0,
        }


# ---------------------------------------------------------------------------- an update's price


def _ratio_of_update(settings: Settings, bench: Bench, *, times: int = 5) -> float:
    """Return the time of an update over that of the passes it is made of, medians.

    Both come from one training of a few trajectories: updates from one log entry to the next, and
    passes from the same denoiser on the same latent.
    """
    sampler = bench.of_batch(settings.batch)
    stamps: list[float] = []
    few = RouterSettings(updates=times * (settings.steps - 1), proxy="none", seed=TRAINED_FROM)
    train_router(
        sampler,
        few,
        evaluations=settings.steps,
        progress=False,
        log=lambda update, numbers: stamps.append(time.perf_counter()),
    )
    updates = [after - before for before, after in pairwise(stamps)]
    return statistics.median(updates) / _passes(sampler, times)


def _passes(sampler: Any, times: int) -> float:
    """Return the median seconds of a forward, and a forward and backward through half of a mix."""
    model, captured = sampler.model, {}

    def capture(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.setdefault("call", (args, kwargs))

    handle = model.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        sampler.final_latent(TRAINED_FROM)
    finally:
        handle.remove()
    args, kwargs = captured["call"]
    gate = torch.ones((), requires_grad=True)
    first = model.get_submodule(sampler.adapter.sites(model)[0].path)
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        with torch.no_grad():
            model(*args, **kwargs)
        _backward(model, first, gate, args, kwargs)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _backward(
    model: Any, first: Any, gate: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Go forward with a gradient from the first site on, and back."""
    scaled: Callable[..., Any] = lambda module, given, output: output * gate  # noqa: E731
    handle = first.register_forward_hook(scaled)
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in wanted:
            weight.requires_grad_(False)
        with torch.enable_grad():
            output = model(*args, **kwargs)
        Structure.of(output).floating[0].sum().backward()
    finally:
        handle.remove()
        for weight in wanted:
            weight.requires_grad_(True)
