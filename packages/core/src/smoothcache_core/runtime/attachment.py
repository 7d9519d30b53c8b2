"""A schedule at work on a live model."""

import itertools
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Site
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import Call, CallReader
from smoothcache_core.calls.clock import Clock, Scheduler, Tick, TimestepCheck
from smoothcache_core.calls.fingerprints import call_fingerprint
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import AttachError, ScheduleError, SmoothCacheWarning
from smoothcache_core.runtime.denoiser_cache import DenoiserCache, refuse_guidance
from smoothcache_core.runtime.graphs import graphs_over_limit, recompile_limit
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.site_cache import Refit, SiteCache
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.strengths import expectation_at, schedule_at
from smoothcache_core.wrapping.denoiser import Step, Wrapping


def warn(message: str) -> None:
    """Warn the user."""
    warnings.warn(message, SmoothCacheWarning, stacklevel=2)


class Attachment:
    """A schedule at work on a model. Made by `attach`.

    Args:
        model: The denoiser the sampler calls, compiled or not.
        adapter: How its calls are read.
        schedule: What to compute and what to fill.
        recipes: The schedule compiled for every site, for the denoiser and for the guidance
            difference, in this order.
        branches: Names of the conditioning passes, if they are calls of their own that nobody
            announces.
        scheduler: The pipeline's scheduler, if it has one.

    Attributes:
        schedule: What it computes and fills.
        stats: What the cache did so far; see `CacheStats`.

    Raises:
        AttachError: The model has a cache already, or cannot be restored.
        ScheduleError: One filled site is inside another, or guidance cannot be filled here.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        schedule: Schedule,
        recipes: Sequence[Recipe],
        branches: tuple[str, ...],
        scheduler: Scheduler | None,
    ) -> None:
        inside = denoiser(model)
        self.schedule = schedule
        self.stats = CacheStats()
        self._store = TensorStore(self.stats)
        self._watch = SchedulerWatch(scheduler)
        self._reader = CallReader(inside, adapter)
        self._timesteps = TimestepCheck(schedule.fingerprint.timesteps)
        self._clock = Clock(
            evaluations=schedule.evaluations,
            branches=branches,
            timesteps=schedule.fingerprint.timesteps or (),
        )
        self._warned: set[str] = set()
        self._under_way = threading.Lock()
        self._attached = True
        self._evaluation = -1
        *of_sites, of_denoiser, of_guidance = recipes
        whole = {DENOISER.kind, GUIDANCE.kind} & set(schedule.rows)
        self._always = [r.site.path for r in of_sites if not r.fills and not whole]
        self._denoiser_cache = DenoiserCache(
            of_denoiser, of_guidance, adapter, branches, self._store, self.stats
        )
        refuse_guidance(of_guidance, adapter, inside, branches)
        self._attach_sites(model, [recipe for recipe in of_sites if recipe.fills], scheduler)

    def _attach_sites(
        self, model: nn.Module, recipes: Sequence[Recipe], scheduler: Scheduler | None
    ) -> None:
        """Wrap the denoiser and its filled sites, in as few modes as compiled code needs."""
        _refuse_nested([recipe.site for recipe in recipes])
        if graphs_over_limit(model, _variants(recipes)):
            recipes = [recipe.keeping_all() for recipe in recipes]
        self._wrapping = Wrapping(model, [recipe.site for recipe in recipes], self)
        try:
            self._sites = SiteCache(self._wrapping.sites, recipes, self._store, self.stats)
            heard = listening(self._clock, denoiser(model), scheduler, self._watch)
            self._wrapping.add(heard)
            self._warn_graphs(graphs_over_limit(model, _variants(recipes)))
        except BaseException:
            self._wrapping.remove()
            raise

    def _warn_graphs(self, graphs: int) -> None:
        if graphs:
            warn(
                f"this schedule may make torch.compile build {graphs} graphs of one code object; "
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
            quietly: Do not warn of a cache that saw no call, a part of a run, or reused nothing.

        Raises:
            AttachError: Somebody wrapped the model on top of the cache; nothing was changed.
        """
        if not self._attached:
            return
        self._wrapping.remove()
        self._attached = False
        self._store.note_peak()
        self._store.drop_all()
        self._denoiser_cache.forget()
        if not quietly:
            self._warn_at_end()

    def _warn_at_end(self) -> None:
        stats = self.stats
        if not stats.evaluations:
            warn("the cache saw no call of the denoiser: is this the model that the sampler calls?")
        elif not self._clock.complete:
            self._warn_incomplete(self._clock.count)
        elif self.schedule.skips and not sum(stats.reused.values()):
            warn("nothing was reused")

    # ------------------------------------------------------------------ driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Prepare for one call of the denoiser; return what to do with it.

        Args:
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.

        Raises:
            AttachError: Another call is under way, in another thread.
            ScheduleError: The run has another number of evaluations than the schedule.
        """
        if not self._under_way.acquire(blocking=False):
            raise AttachError(
                "the denoiser was called while a call was under way; a cached model serves one "
                "thread at a time, so give each its own model"
            )
        try:
            tick = self._begin(self._reader.read(args, kwargs, self._clock.context))
            return self._denoiser_cache.begin(tick, args, kwargs, self._reader.latent(args, kwargs))
        except BaseException:
            self.abort()
            raise

    def _begin(self, call: Call) -> Tick:
        """Find the place of a call in the run, and tell the sites what to do in it."""
        tick = self._clock.tick(call)
        if tick.new_run or tick.evaluation != self._evaluation:
            self._store.note_peak()
            self._evaluation = tick.evaluation
        if tick.new_run:
            self._start_run(tick, call)
        elif tick.broken:
            self._store.drop(tick.branch)
        self._warn_timesteps(self._timesteps.see(tick, call))
        self._warn_other(Fingerprint(solver_settings=self._watch.news()))
        self._sites.prepare(tick)
        self._tick = tick
        return tick

    def _start_run(self, tick: Tick, call: Call) -> None:
        """Drop what earlier runs kept, and compare the run with what was planned for."""
        self._store.drop_all()
        self._denoiser_cache.forget()
        self._timesteps.restart()
        self._watch.begin(call, self.schedule.evaluations, self.schedule.fingerprint.timesteps)
        self.stats.runs += 1
        if tick.ended_at is not None and tick.ended_at < self.schedule.evaluations:
            self._warn_incomplete(tick.ended_at)
        live = call_fingerprint(call)
        self._denoiser_cache.rescale(schedule_at(self.schedule, live.strength).timeline(GUIDANCE))
        self._warn_other(live)
        if expectation := expectation_at(self.schedule, live.strength):
            self._warn_once(expectation)

    def _warn_other(self, live: Fingerprint) -> None:
        for remark in self.schedule.fingerprint.remarks(live):
            self._warn_once(f"the schedule was planned for something else: {remark}")

    def end(self, output: Any) -> Any:
        """Take what is needed later, count, and release what is not needed any more.

        Args:
            output: What the denoiser gave.

        Returns:
            What the caller of the denoiser gets: the same, unless a part of it is filled.
        """
        try:
            self._sites.collect(self._tick)
            output = self._denoiser_cache.end(output)
        except BaseException:
            self.abort()
            raise
        for path in self._always:
            self.stats.count(path, filled=False)
        self.stats.evaluations += 1
        if not self._tick.branch:
            self._store.note_peak()
        last = self._tick.evaluation == self.schedule.evaluations - 1
        self._under_way.release()
        if last:
            self._warn_timesteps(self._timesteps.at_end())
        return output

    def abort(self) -> None:
        """Forget the run after an exception."""
        self._sites.rest()
        self._store.drop_all()
        self._denoiser_cache.forget()
        self._clock.abandon()
        self._under_way.release()

    # ------------------------------------------------------------------ fitting

    def refill(self, compute: Callable[[], object], refit: Refit) -> None:
        """Fill the evaluation under way by other coefficients; for what is called inside the cache.

        Args:
            compute: Calls the denoiser itself; its sites all compute.
            refit: Gives the coefficients of every site that is filled.
        """
        self._sites.refill(self._tick, compute, refit)

    # ------------------------------------------------------------------ telling

    def _warn_timesteps(self, difference: str) -> None:
        if difference:
            self._warn_once(
                f"the timesteps are not those of the calibration ({difference}); the schedule may "
                "skip in the wrong places",
                about="timesteps",
            )

    def _warn_incomplete(self, count: int) -> None:
        self._warn_once(
            f"a run ended after {count} of the schedule's {self.schedule.evaluations} evaluations; "
            f"if the sampler makes {count}, plan for {count}"
        )

    def _warn_once(self, message: str, *, about: str | None = None) -> None:
        about = about or message
        if about not in self._warned:
            self._warned.add(about)
            warn(message)


def _variants(recipes: Sequence[Recipe]) -> dict[str, Sequence[Hashable]]:
    """Return the variants of the modules of all sites, by their paths."""
    return {path: seen for recipe in recipes for path, seen in recipe.variants.items()}


def _refuse_nested(sites: Sequence[Site]) -> None:
    """Raise `ScheduleError` if one site is inside another: skipping the outer skips the inner."""
    for outer, inner in itertools.permutations(sites, 2):
        for above, below in itertools.product(outer.paths, inner.paths):
            if f"{below}.".startswith(f"{above}."):
                raise ScheduleError(
                    f"{inner.path!r} is inside {outer.path!r} and the schedule reuses both; let it "
                    "name one"
                )
