"""A cache on a live model: the schedules and the runs that it serves."""

import threading
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.arguments import check_kind
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import Announced, CallReader
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.fingerprints import live_fingerprint
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import AttachError, ScheduleError, warn
from smoothcache_core.outputs.halves import narrow
from smoothcache_core.relay import beside_of, members_of
from smoothcache_core.runtime.beside import Beside
from smoothcache_core.runtime.program import Program, Programs
from smoothcache_core.runtime.ranks import refuse_unlike
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.run import Run
from smoothcache_core.runtime.site_cache import Refit
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.storage import Storage
from smoothcache_core.wrapping.denoiser import MARK, Step, removed_on_error, sites_of

_NONE: Mapping[int, Run] = MappingProxyType({})

_SELECTED: ContextVar[Mapping[int, Run]] = ContextVar("runs", default=_NONE)
"""Of every attachment, by its `id`, the run that calls of this thread or task belong to."""


class Attachment:
    """A schedule at work on a model. Made by `attach`.

    Args:
        model: The denoiser the sampler calls, compiled or not.
        adapter: How its calls are read.
        schedule: What to compute and what to fill.
        branches: Names of the conditioning passes, if they are calls of their own that nobody
            announces.
        scheduler: The pipeline's scheduler, if it has one.
        solver: Name of the solver, if it is known and not that of `scheduler`.
        differentiable: Whether gradients flow through what is kept.
        storage: How outputs are kept, whatever the schedules say; None if they decide.

    Attributes:
        stats: What the cache did so far, in all runs; see `CacheStats`.
        context: What the pipeline announced of the calls under way; None if nothing.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or cannot be restored; or it is in shards, and
            the ranks that hold them have different schedules; or gradients are to flow through
            outputs that are kept elsewhere.
        ScheduleError: The schedule does not fit the model, one filled site is inside another, or
            guidance cannot be filled here.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        schedule: Schedule,
        *,
        branches: tuple[str, ...],
        scheduler: Scheduler | None,
        solver: str | None,
        differentiable: bool = False,
        storage: Storage | None = None,
    ) -> None:
        inside = denoiser(model)
        refuse_unlike(inside, schedule)
        sites = sites_of(adapter, inside)
        self.stats = CacheStats()
        self.context: Announced | None = None
        self._inside, self._adapter, self._branches = inside, adapter, branches
        self._graph, self._storage = differentiable, storage
        self._watch = SchedulerWatch(scheduler)
        self._remarks = Remarks()
        self._reader = CallReader(inside, adapter)
        self._under_way = threading.Lock()
        self._attached = True
        self._runs: dict[Hashable, Run] = {}
        live = live_fingerprint(inside, adapter, branches, scheduler, solver)
        self._programs = Programs(model, adapter, sites, live, schedule, self, self._remarks)
        with removed_on_error(self._programs.wrapping):
            self._default = self._run_by(self._programs.of(schedule), self._watch)
            self._programs.wrapping.add(listening(self, inside, scheduler, self._watch))
            self._beside = Beside(beside_of(inside), self._foreseen)
            self._programs.wrapping.add(self._beside.changes)

    def _run_by(self, program: Program, watch: SchedulerWatch) -> Run:
        return Run(
            program,
            self._adapter,
            self._branches,
            watch,
            self.stats,
            self._remarks,
            graph=self._graph,
            storage=self._storage,
        )

    def _foreseen(self) -> tuple[Hashable, bool]:
        """Return a name of the run under way, and whether it skips the evaluation to come."""
        run = self._selected
        return id(run), run.will_skip

    @property
    def _selected(self) -> Run:
        """The run that a call belongs to now."""
        return _SELECTED.get().get(id(self), self._default)

    # ------------------------------------------------------------------ for the user

    @property
    def schedule(self) -> Schedule:
        """What runs without a key compute and fill."""
        return self._default.program.schedule

    @property
    def under_way(self) -> tuple[Hashable, ...]:
        """Keys of the runs that have begun and are not at their end, in the order they began."""
        return tuple(self._runs)

    @property
    def evaluations(self) -> int:
        """Evaluations that the run without a key has begun; 0 before its first."""
        return self._default.clock.count

    def kept(self) -> Mapping[str, Any]:
        """Return what is kept of the run without a key: the newest output by names of sites."""
        return self._default.kept()

    def new_run(self) -> None:
        """Say that the next call of the denoiser starts a new run."""
        self.restart()

    def use(self, schedule: Schedule) -> None:
        """Follow another schedule from now on, of as many evaluations as it says.

        The next call of the denoiser without a key begins a new run. Runs with keys that are under
        way keep the schedule that they began with.

        Example:
            >>> attachment = attach(model, adapter, schedule)
            >>> latent = run(0)
            >>> attachment.use(plan(calibration, compute=0.7))
            >>> latent = run(1)
            >>> attachment.detach()

        Args:
            schedule: For the same model and adapter.

        Raises:
            AttachError: The cache is detached; or the schedule's sites cannot be cached beside
                those of the schedules that were used before.
            ScheduleError: The schedule does not fit the model. The one before stays in use.
        """
        self._refuse_detached()
        check_kind(schedule, Schedule, name="schedule", error=ScheduleError)
        program = self._programs.of(schedule)
        self._default.end_for_good(quietly=False)
        self._default = self._run_by(program, self._watch)

    @contextmanager
    def run(self, key: Hashable, schedule: Schedule | None = None) -> Generator[None]:
        """Say that the calls inside belong to the run `key`, so that runs may take turns.

        What is kept of a run, and its place in it, stay until it is at its end, or `forget`. One
        call may be under way at a time. Which run a call belongs to is known to each thread and
        each asyncio task by itself.

        Example:
            Two requests in turn, evaluation by evaluation, each by a schedule of its own:

            >>> import torch
            >>> latents = {"first": torch.randn(2, 4), "second": torch.randn(2, 4)}
            >>> schedules = {"first": schedule, "second": plan(calibration, compute=0.75)}
            >>> attachment = attach(model, adapter, schedule)
            >>> for step in range(8):
            ...     for key, latent in latents.items():
            ...         with attachment.run(key, schedule=schedules[key]):
            ...             latents[key] = latent - model(latent, 1 - step / 8) / 8
            >>> attachment.under_way, attachment.stats.runs
            ((), 2)
            >>> attachment.detach()

        Args:
            key: Names the run, anything hashable. At the end of a run its name is free again.
            schedule: What a run that begins is to follow; that of the attachment if not given.

        Raises:
            AttachError: See `use`.
            ScheduleError: The schedule does not fit the model, or the run is under way by another.
        """
        self._refuse_detached()
        run = self._run_named(key, schedule)
        token = _SELECTED.set({**_SELECTED.get(), id(self): run})
        try:
            yield
        finally:
            _SELECTED.reset(token)
            if run.clock.finished or not run.clock.count:
                self._runs.pop(key, None)

    def _run_named(self, key: Hashable, schedule: Schedule | None) -> Run:
        """Return the run of a key, which begins if there is none."""
        known = self._runs.get(key)
        if schedule is not None:
            check_kind(schedule, Schedule, name="schedule", error=ScheduleError)
        if known is None:
            program = self._programs.of(schedule or self.schedule)
            # the scheduler of a run with a key is its own, and not known
            known = self._runs[key] = self._run_by(program, SchedulerWatch(None))
        elif schedule is not None and schedule != known.program.schedule:
            raise ScheduleError(
                f"run {key!r} is in progress with another schedule; let it finish, or call "
                f"attachment.forget({key!r})"
            )
        return known

    def forget(self, key: Hashable) -> None:
        """Drop a run that will not be continued, with all that is kept of it.

        Args:
            key: Its name; nothing happens if there is no such run.
        """
        run = self._runs.pop(key, None)
        if run is not None:
            run.over()

    def detach(self, *, quietly: bool = False) -> None:
        """Restore the model exactly, and warn if the cache was of no use.

        Args:
            quietly: Do not warn of a cache that saw no call, a part of a run, or reused nothing.

        Raises:
            AttachError: Somebody wrapped the model on top of the cache; nothing was changed.
        """
        if not self._attached:
            return
        self._programs.wrapping.remove()
        self._attached = False
        for run in (self._default, *self._runs.values()):
            run.end_for_good(quietly=quietly)
        self._runs.clear()
        if not quietly:
            self._warn_useless()

    def _warn_useless(self) -> None:
        reused = sum(self.stats.reused.values())
        if not self.stats.evaluations:
            warn(
                "the cached model was never called; attach the cache to the module that the "
                "sampler calls, such as pipe.transformer"
            )
        elif self.schedule.skips and not reused and not self._remarks.any:
            warn(
                "nothing was skipped although the schedule skips: look at stats.recomputed, and "
                "at the number of evaluations of the run"
            )

    def _refuse_detached(self) -> None:
        if not self._attached:
            raise AttachError("this cache is detached from its model; attach one anew")

    # ------------------------------------------------------------------ announcements

    def restart(self) -> None:
        """See `Listener.restart`."""
        self._selected.clock.restart()

    def over(self) -> None:
        """See `Listener.over`."""
        self._selected.over()
        self._beside.forget()

    # ------------------------------------------------------------------ driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int = 0) -> Step:
        """Prepare for one call of the denoiser; return what to do with it.

        Args:
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            member: Which of the denoisers that take turns is called.

        Raises:
            AttachError: Another call is under way, in another thread; or the call belongs to
                another run, or wants a gradient of what is filled.
            ScheduleError: The run has another number of evaluations than the schedule.
        """
        if not self._under_way.acquire(blocking=False):
            raise AttachError(
                "the denoiser was called while a call was under way; a cached model serves one "
                "thread at a time, so give each its own model"
            )
        run = self._called = self._selected
        try:
            call = self._reader.read(args, kwargs, self.context, member)
            latent = self._reader.latent(args, kwargs)
            step = run.begin(call, args, kwargs, latent)
            if run.changes and not self._graph:
                self._refuse_gradient(args, kwargs)
            step = self._settled(step, args, kwargs)
        except BaseException:
            self.abort()
            raise
        return step

    def _settled(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Return what to do with a call, with what was put off of its arguments made."""
        called, given = step.answer is None, (args, kwargs)
        settled = self._beside.settled(given, id(self._called), called=called)
        if settled is given:
            return step
        whole = step.args is args and step.kwargs is kwargs  # not a half of the batch
        if not whole and self._adapter.guidance is not None:
            latent, half = self._reader.latent(args, kwargs), self._adapter.guidance
            return Step(narrow(settled[0], latent, half), narrow(settled[1], latent, half))
        return Step(*settled)

    def _refuse_gradient(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse to fill an evaluation that the caller may want the gradient of."""
        if not torch.is_grad_enabled():
            return
        given = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        wanted = any(tensor.requires_grad for tensor in given)
        if wanted or any(parameter.requires_grad for parameter in self._inside.parameters()):
            raise AttachError(
                "gradients are enabled, but this evaluation is filled from cached outputs, so its "
                "gradient would be wrong. Sample under torch.no_grad(), or attach the cache with "
                "differentiable=True"
            )

    def end(self, output: Any) -> Any:
        """Take what is needed later, count, and release what is not needed any more.

        Args:
            output: What the denoiser gave.

        Returns:
            What the caller of the denoiser gets: the same, unless a part of it is filled.
        """
        try:
            output = self._called.end(output)
        except BaseException:
            self.abort()
            raise
        self._under_way.release()
        return output

    def abort(self) -> None:
        """Forget the run after an exception."""
        self._called.abandon()
        self._beside.forget()
        self._under_way.release()

    # ------------------------------------------------------------------ fitting

    def refill(self, compute: Callable[[], object], refit: Refit) -> None:
        """Fill the evaluation under way by other coefficients; for what is called inside the cache.

        Args:
            compute: Calls the denoiser itself; its sites all compute.
            refit: Gives the coefficients of every site that is filled.
        """
        self._called.refill(compute, refit)


def attachment_of(model: nn.Module) -> Attachment | None:
    """Return the cache that is attached to a model, if there is one.

    Example:
        >>> handle = attach(model, adapter, schedule)
        >>> attachment_of(model) is handle
        True
        >>> attachment_of(model).detach()  # as good as handle.detach()

    Args:
        model: A denoiser, compiled or not; a `Relay`, or one of its members.
    """
    driver = vars(denoiser(members_of(model)[0])).get(MARK)
    return driver if isinstance(driver, Attachment) else None
