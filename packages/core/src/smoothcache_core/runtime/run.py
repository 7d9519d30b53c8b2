"""One run at a time by one schedule: where it is, what it keeps, what it looks like."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from smoothcache_core.adapters.guidance import is_separate
from smoothcache_core.adapters.sites import GUIDANCE, Adapter
from smoothcache_core.calls.call import Call
from smoothcache_core.calls.clock import Clock, Tick, TimestepCheck
from smoothcache_core.calls.fingerprints import call_fingerprint
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import AttachError
from smoothcache_core.runtime.continuity import FOREIGN, Continuity, is_mixed
from smoothcache_core.runtime.denoiser_cache import DenoiserCache
from smoothcache_core.runtime.program import Program
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.shelf import Shelf
from smoothcache_core.runtime.site_cache import Refit, SiteCache
from smoothcache_core.runtime.solver_check import SolverCheck
from smoothcache_core.runtime.soundness import Soundness
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.runtime.turns import Turns
from smoothcache_core.runtime.view import View
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.storage import Storage
from smoothcache_core.schedule.strengths import expectation_at, schedule_at
from smoothcache_core.schedule.timeline import FILLED
from smoothcache_core.wrapping.denoiser import Step

TURNS = (
    "two runs take turns on this model and would use each other's cached outputs; wrap each call "
    "in `with attachment.run(key):`"
)


class Run:
    """Follows a schedule through one run after the other.

    Args:
        program: The schedule, ready for the model.
        adapter: How calls are read.
        branches: Names of the conditioning passes, if they are calls of their own.
        watch: What the scheduler says, if it is known.
        stats: Where everything is counted.
        remarks: Warns the user, each thing once.
        graph: Whether gradients flow through what is kept.
        storage: How outputs are kept; None if the schedule decides.

    Attributes:
        program: The schedule, ready for the model.
        clock: Says where a call is in the run.
    """

    def __init__(
        self,
        program: Program,
        adapter: Adapter,
        branches: tuple[str, ...],
        watch: SchedulerWatch,
        stats: CacheStats,
        remarks: Remarks,
        *,
        graph: bool,
        storage: Storage | None = None,
    ) -> None:
        schedule = program.schedule
        self.program = program
        self.clock = Clock(
            evaluations=schedule.evaluations,
            branches=branches,
            timesteps=schedule.fingerprint.timesteps or (),
        )
        self._branches, self._watch = branches, watch
        self._stats, self._remarks = stats, remarks
        self._store = TensorStore(stats)
        kept_as = storage or schedule.storage
        shelf = None if kept_as is None or kept_as.is_plain else Shelf(kept_as)
        if shelf is not None and graph:
            raise AttachError(
                f"gradients flow through outputs that are kept as they are, not through {kept_as!r}"
                "; attach with differentiable=True or a storage, not both"
            )
        self._timesteps = TimestepCheck(schedule.fingerprint.timesteps)
        self._sites = SiteCache(
            program.sites,
            program.recipes,
            program.coefficients,
            program.scales,
            self._store,
            stats,
            remarks,
            graph=graph,
            shelf=shelf,
        )
        self._whole = DenoiserCache(
            program.denoiser,
            program.guidance,
            adapter,
            branches,
            self._store,
            stats,
            remarks,
            part=schedule.fingerprint.latent_part,
            graph=graph,
            shelf=shelf,
        )
        self._evaluation = -1
        self._answered = False
        self._other_guidance = False
        self._strength: float | None = None
        self._calls = 0
        self._view = View(schedule.fingerprint)
        self._solver = SolverCheck(schedule.solver_steps)
        whole = (program.denoiser.timeline, program.guidance.timeline)
        self._turns = Turns(schedule.fingerprint, whole)
        self._continuity = Continuity()
        self._soundness = Soundness()
        self._watched = (-1, *(program.filled or program.changed)[:2])[-1]

    @property
    def changes(self) -> bool:
        """Whether anything is filled or corrected in the evaluation under way."""
        return self._evaluation in self.program.changed

    @property
    def will_skip(self) -> bool:
        """Whether the call to come is foreseen to be answered: its evaluation is a filled one."""
        coming, modes = self.clock.coming, self.program.denoiser.timeline.modes
        return coming < len(modes) and modes[coming] in FILLED

    # ------------------------------------------------------------------ before a call

    def begin(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        latent: Any,
    ) -> Step:
        """Find the place of a call, and return what to do with it.

        Args:
            call: What it tells.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            latent: The latent among them.

        Raises:
            AttachError: The call belongs to another run.
            ScheduleError: The run has another number of evaluations than the schedule.
        """
        tick = self.clock.tick(call)
        first = tick.new_run or tick.evaluation != self._evaluation
        if first:
            self._store.note_peak()
            self._evaluation, self._calls = tick.evaluation, 0
        if tick.new_run:
            self._start(tick, call)
        elif tick.broken:
            self._store.drop(tick.branch)
        if self.program.changed and self._turns.are_others(tick):
            self._store.drop(tick.branch)
            self._remarks.once(self._turns.remark(tick), about="turns")
        self._warn_timesteps(self._timesteps.see(tick, call))
        if news := self._watch.news():
            planned = self.program.schedule.fingerprint
            self._remarks.unlike(planned, Fingerprint(solver_settings=news))
        self._view.see(latent)
        self._whole.see(tick, self._view.latent)
        if self._view.latent is not None:
            self._look(tick, self._view.latent, first=first)
        self._tick = tick
        step = self._whole.begin(tick, args, kwargs, latent)
        self._answered = step.answer is not None
        if not self._answered:
            self._sites.prepare(tick, self._whole.one_pass)
        return step

    def _start(self, tick: Tick, call: Call) -> None:
        """Drop what earlier runs kept, and compare the run with what was planned for."""
        self._drop()
        self._timesteps.restart()
        self._solver.restart()
        schedule = self.program.schedule
        self._watch.begin(call, schedule.evaluations, schedule.fingerprint.timesteps)
        self._tell_steps(call)
        self._stats.runs += 1
        if tick.ended_at is not None and tick.ended_at < schedule.evaluations:
            self._continuity.leave()
            self._warn_incomplete(tick.ended_at)
        else:
            self._continuity.forget()
        live = call_fingerprint(call)
        self._other_guidance = live.strength not in (None, schedule.fingerprint.strength)
        self._rescale(live.strength)
        self._whole.told(unguided=self._is_unguided(live.strength))
        self._remarks.unlike(schedule.fingerprint, live)
        if expectation := expectation_at(schedule, live.strength):
            self._remarks.once(expectation)

    def _is_unguided(self, strength: float | None) -> bool:
        """Whether the run says that guidance is off, so that two halves are something else."""
        planned = self.program.schedule.fingerprint.strength
        return strength is not None and strength <= 1.0 and strength != planned

    def _rescale(self, strength: float | None) -> None:
        """Fill guidance differences as the strength of guidance of this run needs it."""
        if strength != self._strength:
            self._strength = strength
            rescaled = schedule_at(self.program.schedule, strength)
            self._whole.rescale(rescaled.timeline(GUIDANCE))

    def _look(self, tick: Tick, latent: Tensor, *, first: bool) -> None:
        """Look whether the call goes on with the run that was planned for."""
        evaluation, separate = tick.evaluation, is_separate(tick.branch, self._branches)
        if not self._is_watched(evaluation, latent):
            self._continuity.forget()
        elif first:
            if self._continuity.has_left or self._solver.compares(evaluation):
                self._continuity.begin(evaluation, latent)
            self._solver.begin(evaluation, latent, separate=separate)
        # on an accelerator numbers are waited for once in a run, before its second fill
        self._judge(wait=evaluation == self._watched)

    def _is_watched(self, evaluation: int, latent: Tensor) -> bool:
        """Whether latents are compared here: until the second fill, and while it costs nothing."""
        if self._watched < 0 or not self._view.is_sure:
            return False
        watched = evaluation <= self._watched or self._continuity.has_left
        return watched or latent.device.type == "cpu"

    def _judge(self, *, wait: bool = False) -> None:
        """Tell or refuse what was found out since.

        Raises:
            AttachError: A latent belongs to another run.
        """
        answers = dict(self._continuity.answers(wait=wait))
        if any(map(is_mixed, answers.values())):
            raise AttachError(TURNS)
        for finding in self._solver.findings(wait=wait):
            shares = answers.get(finding.evaluation, [0.0])
            if finding.is_large and shares[0] > FOREIGN:
                raise AttachError(
                    f"{finding.message}. The latent does not continue the previous evaluation: "
                    f"either the sampler draws new noise at every step, or {TURNS}"
                )
            if not (finding.is_guidance and self._other_guidance):  # which was announced, and told
                self._remarks.once(finding.message, about="solver")
        self._tell_broken(self._soundness.broken(wait=wait))

    # ------------------------------------------------------------------ after a call

    def end(self, output: Any) -> Any:
        """Take what is needed later, count, and release what is not needed any more.

        Args:
            output: What the denoiser gave.

        Returns:
            What the caller of the denoiser gets: the same, unless a part of it is filled.
        """
        tick = self._tick
        if self._answered:
            self._sites.pass_over(tick)
        else:
            self._sites.collect(tick)
        output = self._whole.end(output)
        for path in () if self._answered else self.program.always:
            self._stats.count(path, filled=False)
        self._stats.evaluations += 1
        if not tick.branch:
            self._store.note_peak()
        if self._view.latent is not None:
            self._note(tick, self._view.latent, output)
            self._view.forget()
        if tick.evaluation == self.program.schedule.evaluations - 1:
            self._warn_timesteps(self._timesteps.at_end())
        return output

    def _note(self, tick: Tick, latent: Tensor, output: Any) -> None:
        """Note what the next latent is compared with."""
        evaluation = tick.evaluation
        if self._is_watched(evaluation, latent):
            signal = self._view.signal(output)
            self._continuity.end(evaluation, latent, signal)
            self._solver.end(evaluation, self._calls, signal)
        if self.changes:
            self._soundness.see(evaluation, latent, output)
        self._calls += 1

    def refill(self, compute: Callable[[], object], refit: Refit) -> None:
        """Fill the evaluation under way by other coefficients; see `SiteCache.refill`."""
        self._sites.refill(self._tick, compute, refit)

    def kept(self) -> dict[str, Any]:
        """Return the newest kept output by names of sites; see `TensorStore.newest`."""
        return self._store.newest()

    # ------------------------------------------------------------------ other ends

    def over(self) -> None:
        """The run is over, at its end or not: drop everything of it."""
        self._tell_broken(self._soundness.broken())
        self.clock.over()
        self._drop()
        self._continuity.forget()

    def abandon(self) -> None:
        """Forget the run after an exception."""
        self._sites.rest()
        self.clock.abandon()
        self._drop()
        self._solver.restart()
        self._continuity.forget()

    def _drop(self) -> None:
        self._view.forget()
        self._store.note_peak()
        self._store.drop_all()
        self._whole.forget()

    def end_for_good(self, *, quietly: bool) -> None:
        """Drop everything, as the cache is taken off; tell what is wrong with the last run."""
        if not quietly:
            self._tell_broken(self._soundness.broken(wait=True))
            if not self.clock.complete:
                self._warn_incomplete(self.clock.count)
        self._drop()
        self._continuity.forget()

    # ------------------------------------------------------------------ telling

    def _tell_steps(self, call: Call) -> None:
        """Tell at the first call of a run if the pipeline announces another number of steps."""
        if call.steps is None or call.step is None:
            return
        left, planned = call.steps - call.step, self.program.schedule.evaluations
        if left < 1 or planned % left:  # a step may be several evaluations
            self._remarks.once(
                f"the pipeline announces {left} steps, but the schedule has {planned} evaluations; "
                f"plan for {left}",
                about="steps",
            )

    def _tell_broken(self, evaluation: int | None) -> None:
        if evaluation is not None:
            self._remarks.once(
                f"the filled output at evaluation {evaluation} turned a finite latent into NaN or "
                "infinity; the schedule does not fit this run",
                about="not finite",
            )

    def _warn_timesteps(self, difference: str) -> None:
        if difference:
            self._remarks.once(
                f"the timesteps are not those of the calibration ({difference}); the schedule may "
                "skip in the wrong places",
                about="timesteps",
            )

    def _warn_incomplete(self, count: int) -> None:
        counted = "1 evaluation" if count == 1 else f"{count} evaluations"
        self._remarks.once(
            f"a run ended after {counted}, but the schedule is for "
            f"{self.program.schedule.evaluations}. If the sampler makes {count}, plan for "
            f"{count}; if guidance makes a call for each pass, name the passes with branches="
        )
