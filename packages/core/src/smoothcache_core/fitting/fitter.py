"""Fitting one schedule after the other on the same plain runs, and measuring their errors."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property

import numpy as np
from torch import Tensor

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibrating.exact_reference import check_has_exact
from smoothcache_core.calibrating.solver_response import responding
from smoothcache_core.calibration.response import Response
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fitting.channels import ChannelFitting
from smoothcache_core.fitting.evaluations import Fitting
from smoothcache_core.fitting.outputs import OutputFitting
from smoothcache_core.fitting.rollout import CachedRun
from smoothcache_core.fitting.sites import SiteFitting
from smoothcache_core.numerics.few_samples import interval_of_new_mean
from smoothcache_core.numerics.least_squares import check_enough
from smoothcache_core.optimize.masks import Basis
from smoothcache_core.sampling.exact_solution import ExactSolution, exact_solution
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.fill import MOST_TERMS
from smoothcache_core.schedule.provenance import Aim, Distances, Prediction, Provenance, Setting
from smoothcache_core.schedule.schedule import Schedule

_DIVERGED = (
    "the cached runs of this schedule end in NaN or infinity; compute more, or take a data type of "
    "a larger range"
)


class Diverged(ScheduleError):
    """Cached runs of a schedule end in NaN or infinity."""


class Fitter:
    """Fits one schedule after the other on the same seeds, whose plain runs are made once.

    So are exact solutions, where these are aimed at.

    Raises:
        CalibrationError: See `fit`.
        SamplerError: See `fit`.
    """

    def __init__(
        self,
        sampler: Sampler,
        seeds: Sequence[int],
        *,
        terms: int | None = None,
        use_input: bool = True,
        use_anchor: bool = False,
        toward: Aim = "plain",
        channels: bool = False,
    ) -> None:
        self._channels = channels
        self._toward: Aim = toward
        self._sampler = sampler
        self._seeds = tuple(seeds)
        self._terms = terms
        self._basis = Basis(terms=terms or MOST_TERMS, use_input=use_input, use_anchor=use_anchor)
        self._plains = [self._plain(seed) for seed in seeds]

    def _plain(self, seed: int) -> Trajectory:
        plain = record(self._sampler, seed)
        needed(plain.final)
        return plain

    @cached_property
    def _response(self) -> Response:
        first, response = responding(self._sampler, self._plains[0])
        if first.entries is not None:
            self._plains = [plain.only(first.entries) for plain in self._plains]
        return response

    @cached_property
    def _exact(self) -> list[ExactSolution]:
        """The exact solutions of all seeds; none where the plain runs are aimed at."""
        if self._toward == "plain":
            return []
        response = self._response  # before all else, as it may leave entries of the runs out
        check_has_exact(self._plains[0], response)
        return [exact_solution(self._sampler, plain) for plain in self._plains]

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
        exact = self._toward == "exact"
        given = [schedule] if schedule.fills or schedule.corrected else []
        if not exact:
            schedule = schedule.changed(corrected=None)
        if not (skips_whole(schedule) or (exact and schedule.whole)):
            return self._fit_sites(schedule, given, done)
        response = self._response  # before all else, as it may leave entries of the runs out
        each, entries = self._sampler.samples, self._plains[0].end.numel()
        samples = len(self._plains) * each
        check_enough(samples, entries // each, self._basis.coefficients, verb="fit")
        runs = [CachedRun(self._sampler, plain) for plain in self._plains]
        ends = [each.ends for each in self._exact] if exact else None
        fitting = Fitting(schedule, runs, response, self._basis, ends)
        for evaluation in range(schedule.evaluations):
            fitting.step(evaluation)
            done()
        fitted = self._from_fit(fitting.schedule)
        return self._best((fitted, runs), *((one, ()) for one in given))

    @staticmethod
    def steps(schedule: Schedule, seeds: Sequence[int]) -> int:
        """Return how many steps `fit` takes: an evaluation of all seeds, or a run of one."""
        return schedule.evaluations if schedule.whole else len(seeds)

    def _fit_sites(
        self, schedule: Schedule, given: Sequence[Schedule], done: Callable[[], object]
    ) -> Schedule:
        way = self._with_scales if self._channels else self._with_fills
        fitted = way(schedule, done)
        if self._toward == "exact":
            corrected = self._from_fit(self._with_corrections(fitted))
            return self._best((corrected, ()), *((one, ()) for one in given))
        if fitted is schedule:
            return self._measured(schedule)
        return self._best((fitted, ()), (schedule, ()))

    def _with_fills(self, schedule: Schedule, done: Callable[[], object]) -> Schedule:
        """Return a schedule of sites with fitted coefficients; itself if it has none to fit."""
        given = schedule if self._terms is None else schedule.changed(channels=None)
        fitting = SiteFitting(self._sampler, given, self._terms)
        for plain in self._plains:
            if fitting.has_fills:
                fitting.run(plain)
            done()
        return fitting.schedule if fitting.has_fills else schedule

    def _with_scales(self, schedule: Schedule, done: Callable[[], object]) -> Schedule:
        """Return a schedule of sites with reused outputs scaled and shifted."""
        fitting = ChannelFitting(self._sampler, schedule)
        for plain in self._plains:
            fitting.run(plain.seed)
            done()
        return fitting.schedule

    def _with_corrections(self, schedule: Schedule) -> Schedule:
        """Return a schedule of sites with the denoiser's outputs corrected."""
        fitting = OutputFitting(self._sampler, schedule, self._response, self._basis)
        for plain, exact in zip(self._plains, self._exact, strict=True):
            fitting.run(plain, exact.ends)
        return fitting.schedule

    def _from_fit(self, schedule: Schedule) -> Schedule:
        """Return the schedule with a provenance that says by what it was fitted."""
        settings: dict[str, Setting] = asdict(self._basis)
        if self._toward == "exact":
            settings["toward"] = self._toward
        return schedule.changed(source=schedule.source.fitted(self._basis.terms, settings))

    def _best(self, *schedules: tuple[Schedule, Sequence[CachedRun]]) -> Schedule:
        """Return which of some schedules makes the smallest error, the last of equal ones.

        Args:
            schedules: Each with its cached runs if they are under way, else none.

        Raises:
            Diverged: All of them end in NaN or infinity.
        """
        found: list[Schedule] = []
        for schedule, runs in reversed(schedules):
            with suppress(Diverged):
                found.append(self._measured(schedule, runs))
        if not found:
            raise Diverged(_DIVERGED)
        return min(found, key=measured_error)

    def _measured(self, schedule: Schedule, runs: Sequence[CachedRun] = ()) -> Schedule:
        """Return the schedule with the error of its runs, new ones if none are under way."""
        runs = runs or [CachedRun(self._sampler, plain) for plain in self._plains]
        finals = [run.final(schedule) for run in runs]
        plains = [needed(plain.final) for plain in self._plains]
        to_plain = _errors(runs, finals, plains)
        if self._toward == "plain":
            return _measured(schedule, self._seeds, to_plain)
        to_exact = _errors(runs, finals, [each.final for each in self._exact])
        distances = Distances(
            toward="exact",
            to_plain=_mean(to_plain),
            to_exact=_mean(to_exact),
            plain_to_exact=_mean([each.distance for each in self._exact]),
        )
        return _measured(schedule, self._seeds, to_exact, distances)


def _errors(
    runs: Sequence[CachedRun], finals: Sequence[Tensor], aims: Sequence[Tensor]
) -> list[float]:
    """Return the relative L2 errors of all samples of all runs."""
    each = zip(runs, finals, aims, strict=True)
    return [error for run, final, aim in each for error in run.errors(final, aim)]


def _mean(errors: Sequence[float]) -> float:
    """Return the mean of errors.

    Raises:
        Diverged: It is not finite.
    """
    mean = float(np.mean(errors))
    if not np.isfinite(mean):
        raise Diverged(_DIVERGED)
    return mean


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


def _measured(
    schedule: Schedule,
    seeds: Sequence[int],
    errors: Sequence[float],
    distances: Distances | None = None,
) -> Schedule:
    mean = _mean(errors)
    low, high = interval_of_new_mean(errors)
    prediction = Prediction(
        error=mean,
        low=None if low is None else min(low, mean),  # equal errors may differ in the last bit
        high=None if high is None else max(high, mean),
        measured=True,
        bytes=None if schedule.cost is None else schedule.predicted_bytes(),
        seconds=None if schedule.prediction is None else schedule.prediction.seconds,
        by_guidance=None if distances else _by_guidance(schedule, mean),
        exact=distances,
    )
    used = tuple(sorted({*schedule.source.seeds, *seeds}))
    settings = {**schedule.source.settings, "fitted_samples": len(errors)}
    source = Provenance(name=schedule.source.name, settings=settings, seeds=used)
    return schedule.changed(prediction=prediction, source=source)


def _by_guidance(schedule: Schedule, error: float) -> dict[float, float] | None:
    """Return what was expected at other strengths of guidance, by what is measured at its own."""
    known, strength = schedule.prediction, schedule.fingerprint.strength
    if known is None or not known.by_guidance or strength is None:
        return None
    planned = known.error_at(strength) or known.error
    return {at: value * error / (planned + 1e-300) for at, value in known.by_guidance.items()}
