"""The cached run of one seed, continued evaluation by evaluation.

Samplers are black boxes that cannot be halted, so each stretch starts them anew; what the denoiser
said before is replayed, and no evaluation is computed twice.
"""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.errors import CalibrationError, SmoothCacheWarning
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach
from smoothcache_core.sampling.sampler import Stage, Stop
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, final_of, rows_of
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.wrapping.modules import layered


class CachedRun:
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
            return self.calls[asked - 1].answer.copied().output()

        stage = self._stage
        with (
            layered(stage.model, remember),
            attached(stage, schedule),
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
            answer=Structure.of(output).copied(),
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
def attached(stage: Stage, schedule: Schedule) -> Generator[Attachment]:
    """Attach a schedule whose fills are not final yet, without warnings."""
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
            yield attachment
        finally:
            attachment.detach(quietly=True)
