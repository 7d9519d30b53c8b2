"""The cached run of one seed, continued evaluation by evaluation.

Samplers are black boxes that cannot be halted, so each stretch starts them anew; what the denoiser
said before is replayed, and no evaluation is computed twice.
"""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import SmoothCacheWarning
from smoothcache_core.outputs.structures import Structure, denoised, rows_of
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, flat_final
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.wrapping.modules import Inner, layered


class CachedRun:
    """The cached run of one seed, as far as it has come.

    Attributes:
        plain: The plain run.
        adapter: Where the model's sites are.
        calls: What the denoiser was really asked so far, and what it said.
    """

    def __init__(self, sampler: Sampler, plain: Trajectory) -> None:
        self.plain = plain
        self.calls: list[CallRecord] = []
        self.adapter = sampler.adapter
        self._sampler = sampler
        self._reader = CallReader(sampler.model, sampler.adapter)

    @torch.no_grad()
    def advance(self, schedule: Schedule, last: int, *, half: bool = False) -> Tensor | None:
        """Run by `schedule` up to and including evaluation `last`.

        Args:
            schedule: Its fills up to there are right.
            last: An evaluation; as many as there are for the whole run.
            half: Stop inside `last`, when its conditional pass is computed.

        Returns:
            The final latent, (samples, ...); None if the run was stopped.
        """
        clock = Clock(branches=self._sampler.branches)
        place: list[Tick] = []
        asked = 0

        def observe(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tick = clock.tick(self._reader.read(args, kwargs, clock.context, call.member))
            if tick.evaluation > last:
                raise Stop
            place[:] = [tick]
            return call(*args, **kwargs)

        def remember(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal asked
            if asked == len(self.calls):
                output = call(*args, **kwargs)
                self.calls.append(self._record(place[0], args, kwargs, output))
            asked += 1
            if half and place[0].evaluation == last:
                raise Stop
            return self.calls[asked - 1].answer.copied().output()

        sampler = self._sampler
        with (
            layered(sampler.model, remember),
            attached(sampler, schedule),
            layered(sampler.model, observe),
            listening(clock, sampler.model, sampler.scheduler),
        ):
            try:
                return sampler.final_latent(self.plain.seed)
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
        part = self.plain.part
        signals = [call.answer.signal(call.latent, part).float().cpu() for call in calls]
        entries = denoised(self.plain.argument, part).numel()
        return self.plain.taken(torch.cat([signal.reshape(-1, entries) for signal in signals]))

    def final(self, schedule: Schedule) -> Tensor:
        """Run to the end; return the final latent, (n,)."""
        final = self.advance(schedule, schedule.evaluations)
        end = needed(flat_final(final, self.plain.argument, self.plain.part))
        return self.plain.taken(end)

    def errors(self, final: Tensor, aim: Tensor) -> list[float]:
        """Return the relative L2 error of every sample.

        Args:
            final: Final latent of this run, (n,).
            aim: What it should have been, (n,).
        """
        one, other = (each.double().reshape(self._sampler.samples, -1) for each in (final, aim))
        return ((one - other).norm(dim=1) / other.norm(dim=1)).tolist()


@contextmanager
def attached(sampler: Sampler, schedule: Schedule) -> Generator[Attachment]:
    """Attach a schedule whose fills are not final yet, without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)
        attachment = attach(
            sampler.model,
            sampler.adapter,
            schedule,
            branches=sampler.branches,
            scheduler=sampler.scheduler,
            solver=sampler.solver,
        )
        try:
            yield attachment
        finally:
            attachment.detach(quietly=True)
