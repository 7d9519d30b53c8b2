"""Running a sampler while the calls of its denoiser are recorded, replayed or changed.

The sampler is a black box, `sample(seed)`. What can be done with it is to answer the denoiser's
calls: with what the model says, with what it said before, or with something else. That is enough to
learn all that planning needs to know of a solver, see `calibrating/solver_response.py`.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Scheduler, Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.outputs.tensors import synchronize
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, rows_of, trajectory
from smoothcache_core.wrapping.modules import layered

Sample = Callable[[int], object]


class Stop(BaseException):
    """Ends a run of the sampler early; not an `Exception`, so that nobody handles it."""


class Stage:
    """A model, and a sampler that calls it."""

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        sample: Sample,
        branches: Sequence[str] = (),
        scheduler: Scheduler | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.sample = sample
        self.branches = tuple(branches)
        self.scheduler = scheduler
        self._reader = CallReader(model, adapter)

    @torch.no_grad()
    def run(self, seed: int, reply: "Reply | None" = None) -> tuple[list[CallRecord], object]:
        """Run the sampler and record every call; `reply` may answer instead of the model.

        Returns:
            The calls, and what `sample` returned; None if it was stopped.
        """
        clock = Clock(branches=self.branches)
        calls: list[CallRecord] = []

        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            evidence = self._reader.read(args, kwargs, clock.context)
            tick = clock.tick(evidence)
            latent = rows_of(self._reader.latent(args, kwargs)).detach().clone()
            model = functools.partial(call, *args, **kwargs)
            answer = None if reply is None else reply(len(calls), tick, model)
            seconds = None
            if answer is None:
                output, seconds = _timed(model, latent.device)
                answer = Structure.of(output).copied()
            else:
                output = answer.copied().output()
            calls.append(
                CallRecord(
                    evaluation=tick.evaluation,
                    branch=tick.branch,
                    latent=latent,
                    answer=answer,
                    seconds=seconds,
                )
            )
            return output

        with layered(self.model, around), listening(clock, self.model, self.scheduler):
            try:
                result = self.sample(seed)
            except Stop:
                result = None
        return calls, result

    def record(self, seed: int, reply: "Reply | None" = None) -> Trajectory:
        """Run the sampler to its end and return the trajectory.

        Raises:
            CalibrationError: The denoiser was not called, or its output is not like its latent.
        """
        calls, result = self.run(seed, reply)
        if not calls:
            raise CalibrationError(f"`sample` never called the {type(self.model).__name__}")
        return trajectory(seed, calls, result)


Reply = Callable[[int, Tick, Callable[[], Any]], Structure | None]
"""Gives the answer to a call from its number, its place, and a function that asks the model; None
for what the model says."""


def _timed(model: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Call the model; return its output and the seconds it took."""
    synchronize(device)
    start = time.perf_counter()
    output = model()
    synchronize(device)
    return output, time.perf_counter() - start
