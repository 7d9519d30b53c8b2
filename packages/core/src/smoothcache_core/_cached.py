"""Applying a schedule to a live model."""

import itertools
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from smoothcache_core._calls import Call, CallReader
from smoothcache_core._clock import Clock, Scheduler, Tick, listening, same_timestep
from smoothcache_core._compile import graph_variants, recompile_limit
from smoothcache_core._errors import AttachError, ScheduleError, SmoothCacheWarning
from smoothcache_core._fingerprint import (
    Fingerprint,
    call_fingerprint,
    model_fingerprint,
    solver_name,
)
from smoothcache_core._schedule import Schedule
from smoothcache_core._sites import Adapter, Site
from smoothcache_core._tensors import Output, is_output, nbytes
from smoothcache_core._wrap import COMPUTE, REUSE, STORE, Step, WrappedSite, Wrapping, denoiser


@dataclass
class CacheStats:
    """What a cache did, counted as it happens.

    Attributes:
        computed: Evaluations, of all branches, in which each site was computed.
        reused: Evaluations, of all branches, in which each site was answered from the cache.
        runs: Runs seen.
        evaluations: Calls of the denoiser seen, all branches counted.
        recomputed: Planned reuses that had to be computed because nothing usable was kept
            (the batch changed inside a run, or a branch joined late or paused).
        bytes_held: Bytes of cached tensors held now.
        bytes_peak: The most held after any evaluation.
    """

    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    evaluations: int = 0
    recomputed: int = 0
    bytes_held: int = 0
    bytes_peak: int = 0

    @property
    def reuse_fraction(self) -> float:
        """Reused over all evaluations of the sites, 0 if there were none."""
        reused, computed = sum(self.reused.values()), sum(self.computed.values())
        return reused / (reused + computed) if reused + computed else 0.0


@contextmanager
def cached(
    model: nn.Module,
    adapter: Adapter,
    schedule: Schedule,
    *,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
) -> Generator[CacheStats]:
    """Run `model` by `schedule` inside a `with` block; the model is restored exactly at its end.

    Example:
        >>> with cached(pipe.transformer, adapter, schedule, scheduler=pipe.scheduler) as stats:
        ...     images = pipe(class_labels=[207], num_inference_steps=50).images

    Args:
        model: The denoiser the sampler calls. Compile it before, not inside.
        adapter: Where its sites are.
        schedule: What to compute and what to reuse.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them by `cache_context`.
        scheduler: The pipeline's scheduler, if it has one. With it a new run is recognised for
            certain and a wrong number of steps is refused before anything is computed.
        solver: Name of the solver; taken from `scheduler` if not given.

    Yields:
        Statistics, updated while the sampler runs.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or was changed so that it cannot be restored.
        ScheduleError: The schedule does not fit the model or the run.
    """
    attachment = attach(
        model, adapter, schedule, branches=branches, scheduler=scheduler, solver=solver
    )
    try:
        yield attachment.stats
    except BaseException:
        attachment.detach(quietly=True)
        raise
    attachment.detach()


def attach(
    model: nn.Module,
    adapter: Adapter,
    schedule: Schedule,
    *,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
) -> "Attachment":
    """Put the cache on and leave it on, for servers; see `cached` for the arguments and errors."""
    inside = denoiser(model)
    sites = tuple(adapter.sites(inside))
    solver = solver or (solver_name(scheduler) if scheduler is not None else None)
    live = model_fingerprint(inside, adapter.name).model_copy(
        update={"solver": solver, "branches": tuple(branches)}
    )
    _check(schedule, sites, live)
    return Attachment(model, adapter, schedule, sites, tuple(branches), scheduler)


def _check(schedule: Schedule, sites: Sequence[Site], live: Fingerprint) -> None:
    """Refuse a schedule that does not fit; warn of what is harmless."""
    reasons = schedule.fingerprint.conflicts(live)
    if reasons:
        raise ScheduleError(f"this schedule is for another model: {'; '.join(reasons)}")
    unknown = schedule.unknown_keys(sites)
    if unknown:
        kinds = sorted({site.kind for site in sites})
        raise ScheduleError(
            f"the schedule names {unknown[:5]}, which {live.model_class} does not have; with "
            f"adapter {live.adapter!r} its kinds are {kinds}, its first site {sites[0].path!r}"
        )
    for remark in schedule.fingerprint.remarks(live):
        _tell(f"the schedule was planned for something else: {remark}")
    if not schedule.skips:
        _tell("the schedule computes everything: nothing will be reused and nothing gets faster")


def _tell(message: str) -> None:
    warnings.warn(message, SmoothCacheWarning, stacklevel=2)


class Attachment:
    """A schedule at work on a model. Made by `attach`.

    Attributes:
        stats: What the cache did so far.
        schedule: The schedule.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        schedule: Schedule,
        sites: Sequence[Site],
        branches: tuple[str, ...],
        scheduler: Scheduler | None,
    ) -> None:
        inside = denoiser(model)
        self.schedule = schedule
        self.stats = CacheStats()
        self._scheduler = scheduler
        self._reader = CallReader(inside, adapter)
        self._clock = Clock(
            evaluations=schedule.evaluations,
            branches=branches,
            timesteps=schedule.fingerprint.timesteps or (),
        )
        self._told: set[str] = set()
        self._under_way = threading.Lock()
        self._attached = True
        caching = [site for site in sites if 0 in schedule.row(site)]
        self._always = [site.path for site in sites if 0 not in schedule.row(site)]
        rows = [schedule.row(site) for site in caching]
        self._modes = _modes(rows, schedule.evaluations)
        if graph_variants(model, caching, self._modes) > recompile_limit():
            # fewer graphs, at the price of memory while an evaluation is under way
            self._modes = _modes(rows, schedule.evaluations, keep_always=True)
        self._kept: dict[str, list[tuple[Output, ...]]] = {}
        self._timesteps: list[Tensor] = []
        _refuse_nested(caching)
        self._wrapping = Wrapping(model, caching, self)
        try:
            self._wrapping.add(listening(self._clock, inside, scheduler))
            self._tell_variants(model, caching)
        except BaseException:
            self._wrapping.remove()
            raise

    def _tell_variants(self, model: nn.Module, caching: Sequence[Site]) -> None:
        variants = graph_variants(model, caching, self._modes)
        if variants > recompile_limit():
            _tell(
                f"this schedule may make torch.compile build {variants} graphs of one code object; "
                f"its limit is {recompile_limit()}, and what is over it runs eager or fails: raise "
                "torch._dynamo.config.recompile_limit, compile block by block, or plan per kind"
            )

    # ------------------------------------------------------------------ for the user

    def new_run(self) -> None:
        """Say that the next call of the denoiser starts a new run."""
        self._clock.restart()

    def detach(self, *, quietly: bool = False) -> None:
        """Restore the model exactly, and tell the user if the cache was of no use.

        Args:
            quietly: Do not tell.

        Raises:
            AttachError: Somebody wrapped the model on top of the cache; nothing was changed.
        """
        if not self._attached:
            return
        self._wrapping.remove()
        self._attached = False
        self._drop_all()
        if not quietly:
            self._tell_at_end()

    def _tell_at_end(self) -> None:
        stats = self.stats
        if not stats.evaluations:
            _tell(
                "the cache saw no call of the denoiser: is this the model that the sampler calls?"
            )
        elif not self._clock.complete:
            self._tell_incomplete(self._clock.count)
        elif self.schedule.skips and not sum(stats.reused.values()):
            _tell("nothing was reused")

    # ------------------------------------------------------------------ driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Prepare the sites for one call of the denoiser."""
        if not self._under_way.acquire(blocking=False):
            raise AttachError(
                "the denoiser was called while a call was under way; a cached model serves one "
                "thread at a time, so give each its own model"
            )
        try:
            self._begin(self._reader.read(args, kwargs, self._clock.context))
        except BaseException:
            self.abort()
            raise
        return Step(args, kwargs)

    def _begin(self, call: Call) -> None:
        tick = self._clock.tick(call)
        if tick.new_run:
            self._start_run(tick, call)
        elif tick.broken:
            self._drop(tick.branch)
        self._check_timestep(tick, call)
        self._set_modes(tick)
        self._tick = tick

    def _start_run(self, tick: Tick, call: Call) -> None:
        self._drop_all()
        self._timesteps = []
        self._check_steps()
        self.stats.runs += 1
        if tick.ended_at is not None and tick.ended_at < self.schedule.evaluations:
            self._tell_incomplete(tick.ended_at)
        for remark in self.schedule.fingerprint.remarks(call_fingerprint(call)):
            self._tell_once(f"the schedule was planned for something else: {remark}")

    def _check_steps(self) -> None:
        """Refuse a scheduler that is set to another number of evaluations."""
        timesteps = getattr(self._scheduler, "timesteps", None)
        if timesteps is None:
            return
        begin = getattr(self._scheduler, "begin_index", None) or 0
        evaluations = len(timesteps) - begin
        if evaluations != self.schedule.evaluations:
            raise ScheduleError(
                f"{type(self._scheduler).__name__} is set to {evaluations} evaluations, but the "
                f"schedule has {self.schedule.evaluations}; plan for {evaluations} or change it"
            )

    def _set_modes(self, tick: Tick) -> None:
        kept = self._kept.get(tick.branch)
        if kept is None:
            kept = self._kept[tick.branch] = [()] * len(self._wrapping.sites)
        modes = self._modes[tick.evaluation]
        for index, wrapped in enumerate(self._wrapping.sites):
            state, mode, values = wrapped.state, modes[index], kept[index]
            if mode == REUSE and not values:
                mode = STORE
                self.stats.recomputed += 1
            state["_smoothcache_mode"] = mode
            state["_smoothcache_calls"] = 0
            state["_smoothcache_values"] = values if mode == REUSE else ()
            if mode != REUSE:
                self._keep(kept, index, ())

    def end(self, output: Any) -> Any:
        """Take what the sites kept, count, and release what is not needed any more."""
        try:
            self._collect()
        except BaseException:
            self.abort()
            raise
        for path in self._always:
            self.stats.computed[path] = self.stats.computed.get(path, 0) + 1
        self.stats.evaluations += 1
        self.stats.bytes_peak = max(self.stats.bytes_peak, self.stats.bytes_held)
        last = self._tick.evaluation == self.schedule.evaluations - 1
        self._under_way.release()
        if last:
            self._check_device_timesteps()
        return output

    def _collect(self) -> None:
        kept = self._kept[self._tick.branch]
        following = self._modes[self._tick.evaluation + 1 : self._tick.evaluation + 2]
        for index, wrapped in enumerate(self._wrapping.sites):
            self._check_site(wrapped)
            reused = wrapped.state["_smoothcache_mode"] == REUSE
            counts = self.stats.reused if reused else self.stats.computed
            counts[wrapped.site.path] = counts.get(wrapped.site.path, 0) + 1
            needed = bool(following) and following[0][index] == REUSE
            self._keep(kept, index, wrapped.state["_smoothcache_values"] if needed else ())
        self._rest()

    def _rest(self) -> None:
        """Let the sites compute and keep nothing, should somebody call them past the cache."""
        for wrapped in self._wrapping.sites:
            wrapped.state["_smoothcache_mode"] = COMPUTE
            wrapped.state["_smoothcache_values"] = ()

    def abort(self) -> None:
        """Forget the run after an exception."""
        self._rest()
        self._drop_all()
        self._clock.abandon()
        self._under_way.release()

    def _check_site(self, wrapped: WrappedSite) -> None:
        path, values = wrapped.site.path, wrapped.state["_smoothcache_values"]
        if not wrapped.state["_smoothcache_calls"]:
            raise AttachError(
                f"{path!r} was not called in evaluation {self._tick.evaluation}: either the model "
                "does not call it as a module (the adapter does not fit), or a hook put on after "
                "the cache bypasses it; attach the cache last"
            )
        strange = [type(value).__name__ for value in values if not is_output(value)]
        if strange:
            raise AttachError(
                f"{path!r} gives a {strange[0]}; only a tensor or a tuple of tensors can be cached"
            )

    # ------------------------------------------------------------------ memory

    def _keep(self, kept: list[tuple[Output, ...]], index: int, values: tuple[Output, ...]) -> None:
        if values is not kept[index]:
            before = sum(nbytes(value) for value in kept[index])
            self.stats.bytes_held += sum(nbytes(value) for value in values) - before
            kept[index] = values

    def _drop(self, branch: str) -> None:
        kept = self._kept.pop(branch, [])
        self.stats.bytes_held -= sum(nbytes(value) for values in kept for value in values)

    def _drop_all(self) -> None:
        for branch in list(self._kept):
            self._drop(branch)

    # ------------------------------------------------------------------ timesteps

    def _check_timestep(self, tick: Tick, call: Call) -> None:
        """Compare with the timesteps of the calibration, without waiting for a device."""
        expected = self.schedule.fingerprint.timesteps
        if expected is None:
            return
        if call.timestep is not None:
            self._compare_timesteps(tick.evaluation, call.timestep, expected[tick.evaluation])
        elif call.tensor is not None and tick.evaluation == len(self._timesteps):
            self._timesteps.append(call.tensor.detach().reshape(-1)[0].clone())

    def _check_device_timesteps(self) -> None:
        """Compare the timesteps that stayed on a device, once at the end of a run."""
        expected = self.schedule.fingerprint.timesteps
        if expected is None or len(self._timesteps) != len(expected):
            return
        seen, self._timesteps = self._timesteps, []  # once, though every branch comes here
        for evaluation, timestep in enumerate(seen):
            self._compare_timesteps(evaluation, float(timestep), expected[evaluation])

    def _compare_timesteps(self, evaluation: int, here: float, there: float) -> None:
        if not same_timestep(here, there):
            self._tell_once(
                f"the timesteps are not those of the calibration (evaluation {evaluation}: "
                f"{here:g}, calibrated {there:g}); the schedule may skip in the wrong places",
                about="timesteps",
            )

    def _tell_incomplete(self, count: int) -> None:
        self._tell_once(
            f"a run ended after {count} of the schedule's {self.schedule.evaluations} evaluations"
        )

    def _tell_once(self, message: str, *, about: str | None = None) -> None:
        about = about or message
        if about not in self._told:
            self._told.add(about)
            _tell(message)


def _refuse_nested(sites: Sequence[Site]) -> None:
    paths = [site.path for site in sites]
    for outer, inner in itertools.permutations(paths, 2):
        if inner.startswith(f"{outer}."):
            raise ScheduleError(
                f"{inner!r} is inside {outer!r} and the schedule reuses both; let it name one"
            )


def _modes(
    rows: Sequence[Sequence[int]], evaluations: int, *, keep_always: bool = False
) -> list[list[int]]:
    """Return the mode of every site (inner) at every evaluation (outer).

    An output is kept only if the next evaluation reuses it, or `keep_always`.
    """
    padded = [(*row, 1) for row in rows]
    if keep_always:
        return [[STORE if row[e] else REUSE for row in rows] for e in range(evaluations)]
    return [
        [_mode(row[evaluation], row[evaluation + 1]) for row in padded]
        for evaluation in range(evaluations)
    ]


def _mode(now: int, following: int) -> int:
    if not now:
        return REUSE
    return COMPUTE if following else STORE
