"""Calibration: run the unmodified sampler and measure what caching needs to know."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn
from tqdm import tqdm

from smoothcache_core.adapters.compiled import is_compiled
from smoothcache_core.adapters.guidance import conditional_part
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calibrating.recorder import Recorder
from smoothcache_core.calibrating.run_sensitivity import measure_dynamics
from smoothcache_core.calibrating.site_sensitivity import measure_influence
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.fingerprints import model_fingerprint, solver_name
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sampling.sampler import Stage
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


PROBES = 6
"""Evaluations at which a run is perturbed to measure sensitivity."""


def calibrate(
    model: nn.Module,
    adapter: Adapter,
    sample: Callable[[int], object],
    *,
    seeds: Iterable[int],
    max_lag: int = 3,
    samples_per_run: int = 1,
    sensitivity: int | Collection[int] = 2,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
    references: Literal["device", "cpu"] = "device",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Calibration:
    """Measure how the outputs of a model change during a run, and what errors in them would do.

    For every site: the relative L1 error between evaluations i and i + k (SmoothCache's), and the
    inner products of its outputs, k = 0..max_lag. For the run as a whole: how the solver answers to
    the denoiser's outputs, and how the denoiser answers to errors of its latent (see `Dynamics`).
    Every evaluation is computed, and the model is restored.

    Args:
        model: The denoiser, not compiled.
        adapter: Where its sites are.
        sample: Runs the sampler once, from the noise of the given seed, and returns the final
            latent if it can; everything random must come from the seed.
        seeds: One run each. Keep them apart from the seeds you evaluate with.
        max_lag: Largest lag, at least 1. Memory: one copy of all site outputs per lag.
        samples_per_run: Samples in the batch of one run. Guidance may repeat the batch (conditional
            and unconditional rows one block after the other); the rows of one sample are then
            measured together.
        sensitivity: How many of the first seeds, or which seeds, to measure sensitivities with. At
            up to 6 evaluations the output is perturbed and the run is continued, which takes as
            long as about 3 more runs; and the outputs of up to 8 sites of each kind are replaced in
            turn, which takes as many evaluations, and one. `plan` needs at least 1; SmoothCache's
            rule needs none.
        branches: See `Clock`.
        scheduler: The sampler's scheduler, if it has one; names the solver.
        solver: Name of the solver; taken from `scheduler` if not given.
        references: Where earlier outputs are kept: on the model's `"device"` (fast), or on the
            `"cpu"`, which bounds device memory to one output at a time.
        checkpoint: File that is saved after every run, and continued from if it exists.
        progress: Show a progress bar.

    Returns:
        The calibration of all runs, those of `checkpoint` included.

    Raises:
        CalibrationError: The settings are wrong, the runs differ in their evaluations (a solver
            whose evaluations depend on the data has no static schedule), or outputs are not finite.
    """
    todo = _checked_seeds(model, seeds, max_lag, samples_per_run)
    fingerprint = model_fingerprint(model, adapter.name)
    solver = solver or (solver_name(scheduler) if scheduler is not None else None)
    fingerprint = fingerprint.model_copy(update={"solver": solver})
    chosen = _chosen(sensitivity, todo)
    done = _resume(checkpoint, fingerprint, max_lag, whole=bool(chosen))
    remaining = [seed for seed in todo if done is None or seed not in done.seeds]
    recorder = Recorder(model, adapter, max_lag, samples_per_run, branches, fingerprint, references)
    recorder.scheduler = scheduler
    recorder.whole = bool(chosen)
    whole = _Whole(Stage(model, adapter, sample, branches, scheduler), samples_per_run, chosen)
    with tqdm(remaining, desc="calibrating", unit="run", disable=not progress) as bar:
        for seed in bar:
            part, plain = recorder.run(sample, seed)
            if chosen:
                part = whole.add(part, plain)
            done = part if done is None else Calibration.merge(done, part)
            if checkpoint is not None:
                done.save(checkpoint)
    assert done is not None
    return done


def _checked_seeds(
    model: nn.Module, seeds: Iterable[int], max_lag: int, samples_per_run: int
) -> list[int]:
    todo = list(seeds)
    if not todo or len(set(todo)) != len(todo):
        raise CalibrationError(f"calibration needs distinct seeds, got {todo}")
    if max_lag < 1 or samples_per_run < 1:
        raise CalibrationError(
            f"max_lag and samples_per_run must be at least 1, got {max_lag} and {samples_per_run}"
        )
    if is_compiled(model):
        raise CalibrationError(
            f"this {type(model).__name__} is compiled; calibrate first, then compile"
        )
    return todo


def _chosen(sensitivity: int | Collection[int], seeds: Sequence[int]) -> set[int]:
    """Return the seeds to measure sensitivities with."""
    if not isinstance(sensitivity, int):
        return set(sensitivity)
    if sensitivity < 0:
        raise CalibrationError(f"sensitivity is a number of seeds, at least 0, got {sensitivity}")
    return set(seeds[:sensitivity])


def _resume(
    checkpoint: str | Path | None, fingerprint: Fingerprint, max_lag: int, *, whole: bool
) -> Calibration | None:
    if checkpoint is None or not Path(checkpoint).exists():
        return None
    done = Calibration.load(checkpoint)
    reasons = fingerprint.conflicts(done.fingerprint)
    if done.fingerprint.solver != fingerprint.solver:
        reasons.append(f"solver is {done.fingerprint.solver!r}, not {fingerprint.solver!r}")
    if done.max_lag != max_lag:
        reasons.append(f"max_lag is {done.max_lag}, not {max_lag}")
    if whole and done.dynamics is None and not done.remark:
        reasons.append("it has no sensitivities; give `sensitivity=0`")
    if not whole and done.dynamics is not None:
        reasons.append("it has sensitivities, which would be lost with `sensitivity=0`")
    if reasons:
        raise CalibrationError(
            f"cannot continue {str(checkpoint)!r}: {'; '.join(reasons)}; use another file"
        )
    logger.debug("continuing %s with %d samples", checkpoint, done.samples)
    return done


class _Whole:
    """Adds what is learned of whole runs to the calibrations of single runs."""

    def __init__(self, stage: Stage, samples: int, chosen: Collection[int]) -> None:
        self._stage = stage
        self._samples = samples
        self._chosen = chosen

    def add(self, part: Calibration, plain: Trajectory | CalibrationError) -> Calibration:
        """Measure the run that `part` was recorded in; say why if that is not possible."""
        try:
            return self._measure(part, plain)
        except CalibrationError as error:
            return replace(part, remark=str(error))

    def _measure(self, part: Calibration, plain: Trajectory | CalibrationError) -> Calibration:
        if isinstance(plain, CalibrationError):
            raise plain
        branches = tuple(dict.fromkeys(call.branch for call in plain.calls))
        places = places_of(plain.evaluations) if plain.seed in self._chosen else []
        dynamics = measure_dynamics(
            self._stage,
            plain,
            self._samples,
            probes=places,
            conditional=conditional_part(self._stage.adapter, branches),
        )
        assert part.products is not None
        products = joined(part.products) / part.samples
        response = dynamics.response
        influence = measure_influence(self._stage, plain, response, part.sites, products, places)
        return replace(part, dynamics=dynamics, influence=influence)


def places_of(evaluations: int, count: int = PROBES) -> list[int]:
    """Return up to `count` evaluations, evenly spread over those that have a predecessor."""
    if evaluations < 2:
        return []
    places = np.linspace(1, evaluations - 1, min(count, evaluations - 1))
    return sorted({round(place) for place in places.tolist()})
