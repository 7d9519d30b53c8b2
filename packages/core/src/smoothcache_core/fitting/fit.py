"""Fitting a schedule on the trajectory that the cached run really takes.

`plan` fits on a reduced run, where the denoiser is linear. `fit` does the same with the denoiser
itself: it lets the cached runs of all seeds unfold side by side, evaluation by evaluation, and fits
every fill when its turn comes, so that the solver lands on the plain run's next latent.

Fills of sites are fitted to what the plain run's sites gave, one run after the other.

What is where: `fit` and its prediction here; the fits of whole evaluations in `evaluations.py`, how
one run is halted and continued for them in `rollout.py`; the fits of sites in
`sites.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property

import numpy as np
from torch import nn
from tqdm import tqdm

from smoothcache_core.adapters.compiled import is_compiled
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter
from smoothcache_core.calibrating.solver_response import measure_response
from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.errors import CalibrationError, ScheduleError
from smoothcache_core.fitting.evaluations import Fitting
from smoothcache_core.fitting.rollout import CachedRun
from smoothcache_core.fitting.sites import SiteFitting
from smoothcache_core.numerics.bootstrap import interval_of_mean
from smoothcache_core.numerics.least_squares import check_enough
from smoothcache_core.optimize.masks import Basis
from smoothcache_core.sampling.sampler import Sample, Stage
from smoothcache_core.schedule.provenance import Prediction, Provenance
from smoothcache_core.schedule.schedule import MOST_TERMS, Schedule


def fit(
    model: nn.Module,
    adapter: Adapter,
    sample: Sample,
    schedule: Schedule,
    *,
    seeds: Iterable[int],
    samples_per_run: int = 1,
    terms: int | None = None,
    use_input: bool = True,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    progress: bool = True,
) -> Schedule:
    """Fit the fills of a schedule on its own trajectory, and measure the error that it makes.

    Fills of whole evaluations and of the guidance difference use the latent of the evaluation
    computed last if those of the schedule do. Fills of sites combine what the cached run keeps to
    come near to what the plain run's sites gave; while they are fitted, the sites' outputs of one
    evaluation are held as well. If all that does not lower the error, fills stay as they were.

    Args:
        model: The denoiser, not compiled.
        adapter: Where its sites are.
        sample: Runs the sampler once, from the noise of the given seed, and returns the final
            latent; everything random must come from the seed.
        schedule: What to compute and what to skip.
        seeds: One run each; those of the calibration will do. Keep them apart from the seeds you
            evaluate with.
        samples_per_run: Samples in the batch of one run.
        terms: The most computed outputs that a fill combines, 1 to 3. If not given, 3 for whole
            evaluations; for sites as many as in `schedule`, where plain reuse stays what it is.
        use_input: Whether fills of the denoiser also use the latent.
        branches: See `cached`.
        scheduler: See `cached`.
        progress: Show a progress bar.

    Returns:
        The schedule with its new fills, and as its prediction the mean error over all samples, with
        a 95 % bootstrap interval if there are several.

    Raises:
        CalibrationError: The seeds or numbers are wrong, the solver is not affine in the denoiser's
            outputs, or two runs of a seed differ.
        ScheduleError: The schedule does not fit the model or the run, or there are too few samples
            for the coefficients.
    """
    todo = list(seeds)
    _check(model, todo, samples_per_run, terms)
    stage = Stage(model, adapter, sample, branches, scheduler)
    steps = Fitter.steps(schedule, todo)
    with tqdm(total=steps + 1, desc="fitting", unit="step", disable=not progress) as bar:
        fitter = Fitter(
            stage,
            todo,
            samples_per_run,
            terms=terms,
            use_input=use_input,
            use_anchor=has_anchors(schedule),
        )
        bar.update()
        return fitter.fit(schedule, bar.update)


class Fitter:
    """Fits one schedule after the other on the same seeds, whose plain runs are made once.

    Raises:
        CalibrationError: See `fit`.
    """

    def __init__(
        self,
        stage: Stage,
        seeds: Sequence[int],
        samples_per_run: int,
        *,
        terms: int | None = None,
        use_input: bool = True,
        use_anchor: bool = False,
    ) -> None:
        self._stage = stage
        self._seeds = tuple(seeds)
        self._samples = samples_per_run
        self._terms = terms
        self._basis = Basis(terms=terms or MOST_TERMS, use_input=use_input, use_anchor=use_anchor)
        self._plains = [stage.record(seed) for seed in seeds]

    @cached_property
    def _response(self) -> Response:
        return measure_response(self._stage, self._plains[0])

    def fit(self, schedule: Schedule, done: Callable[[], object] = lambda: None) -> Schedule:
        """Return the schedule with new fills and a measured prediction; see `fit`.

        Args:
            schedule: What to compute and what to skip.
            done: Called after every step, see `steps`.
        """
        if self._plains[0].evaluations != schedule.evaluations:
            raise ScheduleError(
                f"the run has {self._plains[0].evaluations} evaluations, the schedule "
                f"{schedule.evaluations}"
            )
        if not skips_whole(schedule):
            return self._fit_sites(schedule, done)
        samples, entries = len(self._plains) * self._samples, self._plains[0].end.numel()
        check_enough(samples, entries // self._samples, self._basis.coefficients, verb="fit")
        runs = [CachedRun(self._stage, plain) for plain in self._plains]
        fitting = Fitting(schedule, runs, self._response, self._basis)
        for evaluation in range(schedule.evaluations):
            fitting.step(evaluation)
            done()
        fitted = self._measured(_from_fit(fitting.schedule, self._basis), runs)
        return self._better(schedule, fitted) if schedule.fills else fitted

    @staticmethod
    def steps(schedule: Schedule, seeds: Sequence[int]) -> int:
        """Return how many steps `fit` takes: an evaluation of all seeds, or a run of one."""
        return schedule.evaluations if skips_whole(schedule) else len(seeds)

    def _fit_sites(self, schedule: Schedule, done: Callable[[], object]) -> Schedule:
        fitting = SiteFitting(self._stage, schedule, self._terms)
        for plain in self._plains:
            if fitting.has_fills:
                fitting.run(plain)
            done()
        if not fitting.has_fills:
            return self._measured(schedule)
        return self._better(schedule, self._measured(fitting.schedule))

    def _better(self, given: Schedule, fitted: Schedule) -> Schedule:
        """Return which of both makes the smaller error, `fitted` having been measured."""
        return min(self._measured(given), fitted, key=measured_error)

    def _measured(self, schedule: Schedule, runs: Sequence[CachedRun] = ()) -> Schedule:
        """Return the schedule with the error of its runs, new ones if none are under way."""
        runs = runs or [CachedRun(self._stage, plain) for plain in self._plains]
        errors = [error for run in runs for error in run.errors(schedule, self._samples)]
        return _measured(schedule, self._seeds, errors)


def _from_fit(schedule: Schedule, basis: Basis) -> Schedule:
    """Return the schedule with a provenance that says by what it was fitted."""
    return schedule.changed(source=schedule.source.fitted(basis.terms, asdict(basis)))


def skips_whole(schedule: Schedule) -> bool:
    """Return whether whole evaluations or unconditional passes are skipped."""
    return 0 in schedule.row(DENOISER) or 0 in schedule.row(GUIDANCE)


def measured_error(schedule: Schedule) -> float:
    """Return the error that a schedule from `Fitter` promises."""
    assert schedule.prediction is not None
    return schedule.prediction.error


def has_anchors(schedule: Schedule) -> bool:
    """Return whether fills of the denoiser use the latent of the evaluation computed last."""
    return bool(schedule.fill(DENOISER).anchors)


def _check(model: nn.Module, seeds: Sequence[int], samples_per_run: int, terms: int | None) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise CalibrationError(f"fitting needs distinct seeds, got {list(seeds)}")
    if samples_per_run < 1 or terms not in (None, *range(1, MOST_TERMS + 1)):
        raise CalibrationError(
            f"samples_per_run is at least 1 and terms 1 to {MOST_TERMS}, got {samples_per_run} and "
            f"{terms}"
        )
    if is_compiled(model):
        raise CalibrationError(f"this {type(model).__name__} is compiled; fit first, then compile")


def _measured(schedule: Schedule, seeds: Sequence[int], errors: Sequence[float]) -> Schedule:
    low, high = interval_of_mean(errors)
    prediction = Prediction(
        error=float(np.mean(errors)),
        low=low,
        high=high,
        measured=True,
        bytes=None if schedule.cost is None else schedule.predicted_bytes(),
        seconds=None if schedule.prediction is None else schedule.prediction.seconds,
    )
    used = tuple(sorted({*schedule.source.seeds, *seeds}))
    settings = {**schedule.source.settings, "fitted_samples": len(errors)}
    source = Provenance(name=schedule.source.name, settings=settings, seeds=used)
    return schedule.changed(prediction=prediction, source=source)
