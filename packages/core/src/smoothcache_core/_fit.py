"""Fitting a schedule on the trajectory that the cached run really takes.

`plan` fits on a reduced run, where the denoiser is linear. `fit` does the same with the denoiser
itself: it lets the cached runs of all seeds unfold side by side, evaluation by evaluation, and fits
every fill when its turn comes, so that the solver lands on the plain run's next latent. Samplers
are black boxes that cannot be halted, so each stretch starts them anew; what the denoiser said
before is replayed, and no evaluation is computed twice.
"""

import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from smoothcache_core._bootstrap import interval_of_mean
from smoothcache_core._cached import attach
from smoothcache_core._calls import CallReader
from smoothcache_core._clock import Clock, Scheduler, Tick, listening
from smoothcache_core._errors import CalibrationError, ScheduleError, SmoothCacheWarning
from smoothcache_core._reduced import Array, ridge_normal
from smoothcache_core._response import Response, measure_response
from smoothcache_core._schedule import MOST_TERMS, Fill, Prediction, Schedule
from smoothcache_core._sites import DENOISER, GUIDANCE, Adapter, conditional_part
from smoothcache_core._trajectory import (
    Answer,
    CallRecord,
    Sample,
    Stage,
    Stop,
    Trajectory,
    final_of,
    layered,
    rows_of,
)
from smoothcache_core._wrap import is_compiled
from smoothcache_core.fills import rounded


def fit(
    model: nn.Module,
    adapter: Adapter,
    sample: Sample,
    schedule: Schedule,
    *,
    seeds: Iterable[int],
    samples_per_run: int = 1,
    terms: int = MOST_TERMS,
    use_input: bool = True,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    progress: bool = True,
) -> Schedule:
    """Fit the fills of a schedule on its own trajectory, and measure the error that it makes.

    Fills of whole evaluations and of the guidance difference are fitted. A schedule of sites is
    measured only.

    Args:
        model: The denoiser, not compiled.
        adapter: Where its sites are.
        sample: Runs the sampler once, from the noise of the given seed, and returns the final
            latent; everything random must come from the seed.
        schedule: What to compute and what to skip.
        seeds: One run each; those of the calibration will do. Keep them apart from the seeds you
            evaluate with.
        samples_per_run: Samples in the batch of one run.
        terms: The most computed outputs that a fill combines, 1 to 3.
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
        ScheduleError: The schedule does not fit the model or the run.
    """
    todo = list(seeds)
    _check(model, todo, samples_per_run, terms)
    stage = Stage(model, adapter, sample, branches, scheduler)
    with tqdm(
        total=schedule.evaluations + 1, desc="fitting", unit="evaluation", disable=not progress
    ) as bar:
        fitter = Fitter(stage, todo, samples_per_run, terms=terms, use_input=use_input)
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
        terms: int = MOST_TERMS,
        use_input: bool = True,
    ) -> None:
        self._stage = stage
        self._seeds = tuple(seeds)
        self._samples = samples_per_run
        self._terms = terms
        self._use_input = use_input
        self._plains = [stage.record(seed) for seed in seeds]

    @cached_property
    def _response(self) -> Response:
        return measure_response(self._stage, self._plains[0])

    def fit(self, schedule: Schedule, done: Callable[[], object] = lambda: None) -> Schedule:
        """Return the schedule with new fills and a measured prediction; see `fit`.

        Args:
            schedule: What to compute and what to skip.
            done: Called after every evaluation.
        """
        if self._plains[0].evaluations != schedule.evaluations:
            raise ScheduleError(
                f"the run has {self._plains[0].evaluations} evaluations, the schedule "
                f"{schedule.evaluations}"
            )
        runs = [_CachedRun(self._stage, plain) for plain in self._plains]
        if 0 in schedule.row(DENOISER) or 0 in schedule.row(GUIDANCE):
            fitting = _Fitting(schedule, runs, self._response, self._terms, self._use_input)
            for evaluation in range(schedule.evaluations):
                fitting.step(evaluation)
                done()
            schedule = fitting.schedule
        errors = [error for run in runs for error in run.errors(schedule, self._samples)]
        return _measured(schedule, self._seeds, errors)


def _check(model: nn.Module, seeds: Sequence[int], samples_per_run: int, terms: int) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise CalibrationError(f"fitting needs distinct seeds, got {list(seeds)}")
    if samples_per_run < 1 or not 1 <= terms <= MOST_TERMS:
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
    )
    used = tuple(sorted({*schedule.source.seeds, *seeds}))
    settings = {**schedule.source.settings, "fitted_samples": len(errors)}
    source = schedule.source.model_copy(update={"seeds": used, "settings": settings})
    return schedule.model_copy(update={"prediction": prediction, "source": source})


# ---------------------------------------------------------------------------- one run


class _CachedRun:
    """The cached run of one seed, as far as it has come.

    Attributes:
        plain: The plain run.
        adapter: Where the model's sites are.
        calls: What the denoiser was really asked so far, and what it said.
    """

    def __init__(self, stage: Stage, plain: Trajectory) -> None:
        self.plain = plain
        self.calls: list[CallRecord] = []
        self.adapter = stage.adapter
        self._stage = stage
        self._reader = CallReader(stage.model, stage.adapter)

    @torch.no_grad()
    def advance(self, schedule: Schedule, last: int, *, half: bool = False) -> object:
        """Run by `schedule` up to and including evaluation `last`.

        Args:
            schedule: Its fills up to there are right.
            last: An evaluation; as many as there are for the whole run.
            half: Stop inside `last`, when its conditional pass is computed.

        Returns:
            What `sample` returned, None if it was stopped.
        """
        clock = Clock(branches=self._stage.branches)
        place: list[Tick] = []
        asked = 0

        def observe(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tick = clock.tick(self._reader.read(args, kwargs, clock.context))
            if tick.evaluation > last:
                raise Stop
            place[:] = [tick]
            return call(*args, **kwargs)

        def remember(
            call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            nonlocal asked
            if asked == len(self.calls):
                output = call(*args, **kwargs)
                self.calls.append(self._record(place[0], args, kwargs, output))
            asked += 1
            if half and place[0].evaluation == last:
                raise Stop
            return self.calls[asked - 1].answer.output()

        stage = self._stage
        with (
            layered(stage.model, remember),
            _attached(stage, schedule),
            layered(stage.model, observe),
            listening(clock, stage.model, stage.scheduler),
        ):
            try:
                return stage.sample(self.plain.seed)
            except Stop:
                return None

    def _record(
        self, tick: Tick, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> CallRecord:
        return CallRecord(
            evaluation=tick.evaluation,
            branch=tick.branch,
            latent=rows_of(self._reader.latent(args, kwargs)).detach().clone(),
            answer=Answer.of(output),
        )

    def outputs(self, evaluation: int) -> Tensor:
        """Return what was computed at an evaluation, (parts, n); fewer parts if not all were."""
        calls = [call for call in self.calls if call.evaluation == evaluation]
        signals = [call.answer.signal(call.latent).float().cpu() for call in calls]
        entries = self.plain.latents.shape[1]
        return torch.cat([signal.reshape(-1, entries) for signal in signals])

    def errors(self, schedule: Schedule, samples: int) -> list[float]:
        """Run to the end; return the relative L2 error of every sample."""
        result = self.advance(schedule, schedule.evaluations)
        end = final_of(result, self.plain.latents.shape[1])
        if end is None or self.plain.final is None:
            raise CalibrationError(
                "`sample` must return the final latent as a tensor, so that its error can be "
                f"measured; it returned {type(result).__name__}"
            )
        if len(end) % samples:
            raise CalibrationError(f"{samples} samples per run do not divide the final latent")
        plain = self.plain.final.double().reshape(samples, -1)
        moved = (end.double().reshape(samples, -1) - plain).norm(dim=1)
        return (moved / plain.norm(dim=1)).tolist()


@contextmanager
def _attached(stage: Stage, schedule: Schedule) -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)
        attachment = attach(
            stage.model,
            stage.adapter,
            schedule,
            branches=stage.branches,
            scheduler=stage.scheduler,
        )
        try:
            yield
        finally:
            attachment.detach(quietly=True)


# ---------------------------------------------------------------------------- the fit


class _Normal:
    """Normal equations, summed over runs."""

    def __init__(self) -> None:
        self._normal: Array = np.zeros(0)
        self._right: Array = np.zeros(0)

    def add(self, regressors: Sequence[Tensor], target: Tensor) -> None:
        basis = torch.stack([r.double() for r in regressors])
        normal, right = (basis @ basis.T).numpy(), (basis @ target.double()).numpy()
        self._normal = normal if not self._normal.size else self._normal + normal
        self._right = right if not self._right.size else self._right + right

    def solve(self) -> Array:
        return ridge_normal(self._normal, self._right)


class _Fitting:
    """Fits one evaluation after the other.

    Attributes:
        schedule: The schedule, with the fills fitted so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        runs: Sequence[_CachedRun],
        response: Response,
        terms: int,
        use_input: bool,
    ) -> None:
        self.schedule = schedule
        self._runs = [_Unfolding(run, response) for run in runs]
        self._terms = terms
        self._use_input = use_input
        self._rows = schedule.row(DENOISER), schedule.row(GUIDANCE)
        names = tuple(dict.fromkeys(call.branch for call in runs[0].plain.calls))
        self._cond = conditional_part(runs[0].adapter, names) or 0

    def step(self, evaluation: int) -> None:
        """Fit or compute one evaluation."""
        evaluated, guided = (row[evaluation] for row in self._rows)
        if not evaluated:
            self._fit_denoiser(evaluation)
        elif guided:
            self._compute(evaluation)
        else:
            self._fit_guidance(evaluation)

    def _compute(self, evaluation: int) -> None:
        last = evaluation
        while last + 1 < self.schedule.evaluations and all(row[last + 1] for row in self._rows):
            last += 1
        for run in self._runs:
            if not run.knows(evaluation):
                run.cached.advance(self.schedule, last)
            run.take(evaluation, run.cached.outputs(evaluation), self._cond)

    def _fit_denoiser(self, evaluation: int) -> None:
        normal = _Normal()
        for run in self._runs:
            normal.add(self._regressors(run, evaluation), run.landing(evaluation))
        found = normal.solve()
        for run in self._runs:
            parts = zip(found.tolist(), self._regressors(run, evaluation), strict=True)
            run.change(evaluation, sum((c * r for c, r in parts), torch.zeros(())))
        count = len(found) - self._use_input
        given = self.schedule.fill(DENOISER)
        inputs = {evaluation: rounded(found[count:])[0]} if self._use_input else {}
        fill = Fill(
            terms={**given.terms, evaluation: rounded(found[:count])},
            inputs={**{k: v for k, v in given.inputs.items() if k != evaluation}, **inputs},
        )
        self._put(DENOISER.kind, fill)

    def _regressors(self, run: "_Unfolding", evaluation: int) -> list[Tensor]:
        outputs = [run.guide(evaluation, y) for y in run.history[: self._terms]]
        return [*outputs, run.latent(evaluation)] if self._use_input else outputs

    def _fit_guidance(self, evaluation: int) -> None:
        normal = _Normal()
        conditional = []
        for run in self._runs:
            run.cached.advance(self.schedule, evaluation, half=True)
            conditional.append(run.cached.outputs(evaluation)[0])
            target = run.difference(evaluation, conditional[-1], self._cond)
            normal.add(run.differences[: self._terms], target)
        found = normal.solve()
        for run, output in zip(self._runs, conditional, strict=True):
            parts = zip(found.tolist(), run.differences, strict=False)
            filled = output - sum((c * d for c, d in parts), torch.zeros(()))
            both = (output, filled) if self._cond == 0 else (filled, output)
            run.take(evaluation, torch.stack(both), None)
        terms = {**self.schedule.fill(GUIDANCE).terms, evaluation: rounded(found)}
        self._put(GUIDANCE.kind, Fill(terms=terms))

    def _put(self, key: str, fill: Fill) -> None:
        self.schedule = self.schedule.model_copy(
            update={"fills": {**self.schedule.fills, key: fill}}
        )


class _Unfolding:
    """One cached run beside its plain run, in float32 on the CPU; n entries in all samples.

    Attributes:
        cached: The run itself.
        history: Outputs computed so far, (parts, n) each, the newest first.
        differences: Conditional minus unconditional outputs, where both were computed.
    """

    def __init__(self, cached: _CachedRun, response: Response) -> None:
        self.cached = cached
        self.history: list[Tensor] = []
        self.differences: list[Tensor] = []
        self._plain = cached.plain
        self._response = response
        self._guided = response.guided(cached.plain.outputs)
        self._changes = torch.zeros_like(self._guided)

    def knows(self, evaluation: int) -> bool:
        """Return whether the evaluation was computed already."""
        return any(call.evaluation == evaluation for call in self.cached.calls)

    def guide(self, evaluation: int, outputs: Tensor) -> Tensor:
        """Return the guided output, (n,), of outputs (parts, n)."""
        weights = torch.from_numpy(self._response.weights[evaluation]).to(outputs)
        return weights @ outputs

    def latent(self, evaluation: int) -> Tensor:
        """Return the cached run's latent, (n,)."""
        drift = self._response.drift(evaluation, self._changes)
        return self._plain.latents[evaluation] + drift

    def landing(self, evaluation: int) -> Tensor:
        """Return the guided output that makes the solver land on the plain run's next latent."""
        row = self._response.matrix[evaluation]
        if not row[evaluation]:
            return self._guided[evaluation]
        weights = torch.from_numpy(row[:evaluation] / row[evaluation]).to(self._changes)
        return self._guided[evaluation] - weights @ self._changes[:evaluation]

    def difference(self, evaluation: int, conditional: Tensor, index: int) -> Tensor:
        """Return the guidance difference that lands, (n,), given the conditional output."""
        share = float(self._response.weights[evaluation, 1 - index])
        if abs(share) > 1e-6:
            return (conditional - self.landing(evaluation)) / share
        return self._plain.outputs[evaluation, index] - self._plain.outputs[evaluation, 1 - index]

    def take(self, evaluation: int, outputs: Tensor, conditional: int | None) -> None:
        """Note computed outputs, (parts, n), and their difference if `conditional` is given."""
        self.history.insert(0, outputs)
        if conditional is not None and len(outputs) == 2:
            self.differences.insert(0, outputs[conditional] - outputs[1 - conditional])
        self.change(evaluation, self.guide(evaluation, outputs))

    def change(self, evaluation: int, guided: Tensor) -> None:
        """Note the guided output that the solver gets."""
        self._changes[evaluation] = guided - self._guided[evaluation]
