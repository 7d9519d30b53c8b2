"""The clock: which evaluation, of which branch, of which run, a call of the denoiser is.

Evaluations are counted at the denoiser, never at a submodule. A new run is recognised by evidence,
the strongest first: somebody said so (`restart`), the evaluations are used up, the timesteps are
back at their start, the latent changed its layout. What cannot be told apart is a new run: its
first evaluation computes everything, so a tensor of one run never reaches another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from smoothcache_core.calls.call import Announced, Call, largest
from smoothcache_core.errors import ScheduleError


class Scheduler(Protocol):
    """A diffusers-like scheduler: announces a run by `set_timesteps`, then holds its timesteps."""

    timesteps: Any

    def set_timesteps(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a run of so many steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The place of one call.

    Attributes:
        evaluation: Index in the run, from 0.
        branch: Name of the conditioning pass; `""` if there is only one.
        new_run: Whether this call is the first of a run.
        ended_at: Evaluations the previous run had, if this call ended it; else None.
        broken: Whether what was kept of this branch must not be reused: its latent or another
            argument changed shape, dtype or device, a text or flag among the arguments or the
            denoiser's variant changed, it had no call in the previous evaluation, it may have been
            taken for another branch, or the timesteps leave those that are expected.
        member: Which of the denoisers that take turns is called, from 0; 0 where there is one.
        handed_over: Whether it is another one than at the last call of this branch.
    """

    evaluation: int
    branch: str
    new_run: bool
    ended_at: int | None = None
    broken: bool = False
    member: int = 0
    handed_over: bool = False


def same_timestep(one: float, other: float) -> bool:
    """Return whether two timesteps are equal up to rounding."""
    # far above the rounding of float32 (6e-8), below the steps of the finest solvers (1 of 1000)
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)


class Clock:
    """Counts evaluations per run and branch.

    Args:
        evaluations: Evaluations of a run if known; a longer run is refused.
        branches: Names of the conditioning passes that are evaluated one after the other by
            calls of their own. Leave empty for batched guidance, and for pipelines that announce
            each pass by `cache_context`.
        timesteps: The timesteps a run is expected to have, if known. Where a run starts with the
            first of them and then leaves the sequence forwards, it may have another number of steps
            or be another run: evaluations are counted on, but nothing that was kept is reused.
    """

    def __init__(
        self,
        *,
        evaluations: int | None = None,
        branches: Sequence[str] = (),
        timesteps: Sequence[float] = (),
    ) -> None:
        self.evaluations = evaluations
        self.branches = tuple(branches)
        self.timesteps = tuple(timesteps)
        self.context: Announced | None = None
        self._pending = False
        self._forget()

    def _forget(self) -> None:
        self._evaluation = -1
        self._seen: list[str] = []
        self._seen_before: set[str] = set()
        self._calls: dict[str, tuple[int, Call]] = {}
        self._first: Call | None = None
        self._current: Call | None = None
        self._recent: list[float] = []
        self._doubtful = False
        self._views = False
        self._follows = False

    def restart(self) -> None:
        """The next call is the first of a new run."""
        self._pending = True

    def over(self) -> None:
        """The run is over; the next call is the first of a new one."""
        self.restart()

    def abandon(self) -> None:
        """The run ended by an exception; the next call is the first of a new run."""
        self._pending = False
        self._forget()

    @property
    def count(self) -> int:
        """Evaluations begun in the current run."""
        return self._evaluation + 1

    @property
    def coming(self) -> int:
        """The evaluation that the next call most likely belongs to; 0 where a run may begin."""
        if self._pending or self.finished:
            return 0
        whole = self._seen_before <= set(self._seen) and len(self._seen) >= len(self.branches)
        return self.count if whole else max(self._evaluation, 0)

    @property
    def complete(self) -> bool:
        """Whether the current run has had all its evaluations, or has not begun."""
        return self.count in (0, self.evaluations)

    @property
    def finished(self) -> bool:
        """Whether the last evaluation had a call of every pass that the one before it had."""
        return self.count == self.evaluations and self._seen_before <= set(self._seen)

    def tick(self, call: Call) -> Tick:
        """Return the place of `call`.

        Raises:
            ScheduleError: The run has more evaluations than it should.
        """
        ended_at = None
        if self._current is not None and self._is_new_run(call, self._current):
            ended_at = self.count
            self._forget()
        self._pending = False
        new_run = self._current is None
        if self._is_next_evaluation(call):
            self._begin_evaluation(call, new_run)
        branch = self._branch(call)
        broken = self._is_broken(branch, call)
        handed_over = branch in self._calls and self._calls[branch][1].member != call.member
        self._seen.append(branch)
        self._calls[branch] = self._evaluation, call
        return Tick(
            evaluation=self._evaluation,
            branch=branch,
            new_run=new_run,
            ended_at=ended_at,
            broken=broken,
            member=call.member,
            handed_over=handed_over,
        )

    def _begin_evaluation(self, call: Call, new_run: bool) -> None:
        # a call that is missing from the first evaluation may have been that of another run
        self._doubtful = self._evaluation == 0 and len(self._seen) < len(self.branches)
        self._evaluation += 1
        self._seen_before = set(self._seen)
        self._seen = []
        followed = self._follows
        self._note_timestep(call, new_run)
        self._note_position(call)
        # timesteps that leave the expected ones may be those of another run, unless they are views
        self._doubtful |= followed and not self._follows and not self._views

    def _is_broken(self, branch: str, call: Call) -> bool:
        """Whether nothing kept of `branch` may be reused in this call, see `Tick.broken`."""
        if branch not in self._calls:
            return False
        evaluation, last = self._calls[branch]
        missed = self._evaluation - evaluation > 1
        return missed or last.inside != call.inside or self._doubtful

    def _note_timestep(self, call: Call, new_run: bool) -> None:
        if call.progress is not None:
            self._recent = [*self._recent[-1:], call.progress]
        self._follows = (new_run or self._follows) and self._expects(self._evaluation, call)

    def _note_position(self, call: Call) -> None:
        first = self._first = self._first or call
        if call.position and first.position and call.position[0] == first.position[0]:
            self._views |= call.position[1] != first.position[1]
        self._current = call

    def _branch(self, call: Call) -> str:
        if call.context is not None:
            return call.context
        return self.branches[len(self._seen)] if self.branches else ""

    def _is_next_evaluation(self, call: Call) -> bool:
        if self._current is None or self._moved(call, self._current):
            return True
        if call.context is not None:
            return call.context in self._seen
        return len(self._seen) >= len(self.branches)

    def _moved(self, call: Call, last: Call) -> bool:
        """Whether the timestep, or the step, is known to differ from the last evaluation's."""
        if None not in (call.step, last.step) and call.step != last.step:
            return True
        if call.progress is not None:
            return call.progress != last.progress
        return self._views and call.position is not None and call.position != last.position

    def _is_new_run(self, call: Call, last: Call) -> bool:
        if self._pending:
            return True
        if not self._is_next_evaluation(call):
            return False
        started = self._starts_over(call, last)
        if self.count == self.evaluations:
            if started is False:
                at = "" if call.timestep is None else f" (timestep {call.timestep:g})"
                raise ScheduleError(
                    f"the sampler makes evaluation number {self.count + 1}{at} of a run, but the "
                    f"schedule is for {self.evaluations}; plan for as many as the sampler makes, "
                    "or "
                    'pass branches=("cond", "uncond") if guidance makes two calls per step'
                )
            return True
        return last.layout != call.layout if started is None else started

    def _starts_over(self, call: Call, last: Call) -> bool | None:
        """Whether the timesteps are back at their start; None if that cannot be seen."""
        first = self._first or last
        if call.step is not None and last.step is not None and call.step != last.step:
            return call.step < last.step
        if self._views and call.position and first.position and last.position:
            return call.position[0] != first.position[0] or call.position[1] < last.position[1]
        if call.progress is None:
            return None
        if self._follows and self._expects(self.count, call):
            return False
        if call.progress != call.timestep:  # of tokens, nobody says which way their time runs
            return call.progress == first.progress
        return call.progress == first.progress or self._is_behind(call.progress, first.progress)

    def _expects(self, evaluation: int, call: Call) -> bool:
        return (
            evaluation < len(self.timesteps)
            and call.timestep is not None
            and same_timestep(call.timestep, self.timesteps[evaluation])
        )

    def _is_behind(self, progress: float, first: float | None) -> bool:
        """Whether a run is no further from the start than the last two evaluations were.

        One of them is not enough: two-evaluation solvers repeat, or go up and down.
        """
        if first is None or not self._recent:
            return False
        if self._recent[-1] > first:
            return progress <= min(self._recent)
        if self._recent[-1] == first == 0.0:
            return False  # time may run upwards, as in models that count from 0 to 1
        return progress >= max(self._recent)


class TimestepCheck:
    """Says where the timesteps of a run leave those that are expected.

    Args:
        expected: The timestep of every evaluation; None to compare nothing.
    """

    def __init__(self, expected: Sequence[float] | None) -> None:
        self._expected = expected
        self._on_device: list[Tensor] = []

    def restart(self) -> None:
        """A new run begins."""
        self._on_device = []

    def see(self, tick: Tick, call: Call) -> str:
        """Return how the timestep of a call differs; empty if it does not or cannot be seen yet."""
        if self._expected is None:
            return ""
        if call.timestep is not None:
            return self._difference(tick.evaluation, call.timestep)
        if call.tensor is not None and tick.evaluation == len(self._on_device):
            self._on_device.append(largest(call.tensor))
        return ""

    def at_end(self) -> str:
        """Return how the timesteps that stayed on a device differ; for the end of a run."""
        if self._expected is None or len(self._on_device) != len(self._expected):
            return ""
        seen, self._on_device = self._on_device, []  # once, though every branch comes here
        differences = [self._difference(e, float(timestep)) for e, timestep in enumerate(seen)]
        return next(filter(None, differences), "")

    def _difference(self, evaluation: int, here: float) -> str:
        assert self._expected is not None
        there = self._expected[evaluation]
        if same_timestep(here, there):
            return ""
        return f"evaluation {evaluation}: {here:g}, calibrated {there:g}"
