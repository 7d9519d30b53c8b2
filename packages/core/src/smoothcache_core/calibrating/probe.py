"""What a run of a sampler is, found out at the cost of one evaluation."""

from collections.abc import Hashable, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import Call, CallReader
from smoothcache_core.calls.clock import Clock
from smoothcache_core.calls.fingerprints import live_fingerprint, run_fingerprint, timestep_of
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.relay import takes_turns
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.fingerprint import INPUTS, Fingerprint
from smoothcache_core.wrapping.modules import Inner, layered


def sampler_fingerprint(sampler: Sampler) -> Fingerprint:
    """Return what can be said of a sampler without running it.

    Args:
        sampler: How a run is made.
    """
    live = live_fingerprint(
        sampler.model, sampler.adapter, sampler.branches, sampler.scheduler, sampler.solver
    )
    return live.changed(sampling=sampler.settings)


class Probe:
    """Looks at runs of a sampler, at each seed once.

    Args:
        sampler: How a run is made.
        seeds: Its seeds; the first is looked at unless a calibration names another.
    """

    def __init__(self, sampler: Sampler, seeds: Sequence[int]) -> None:
        self._sampler, self._seeds = sampler, seeds
        self._known: dict[int, Fingerprint] = {}

    def look(self, done: Fingerprint | None = None) -> Fingerprint:
        """Return what a run is.

        Args:
            done: What was measured before; its inputs are compared at the seed that it names.
        """
        first = self._seeds[0]
        seed = first if done is None else _seed_of_inputs(done, first)
        if seed not in self._known:
            self._known[seed] = probed(self._sampler, seed)
        return self._known[seed]


def _seed_of_inputs(done: Fingerprint, default: int) -> int:
    names = [name for name in done.sampling or {} if name.startswith(INPUTS)]
    return int(names[0].removeprefix(INPUTS)) if names else default


def probed(sampler: Sampler, seed: int) -> Fingerprint:
    """Return what can be said of a run, as when it is over, and what its model was given.

    The denoiser is asked at the first evaluation; all others are answered by what it said there.

    Args:
        sampler: How a run is made.
        seed: Seed of the run.

    Raises:
        CalibrationError: `run` never called the denoiser.
    """
    return _Probe(sampler).run(seed)


class _Probe:
    """Stands around the denoiser during one run."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._clock = Clock(branches=sampler.branches)
        self._watch = SchedulerWatch(sampler.scheduler)
        self._reader = CallReader(sampler.model, sampler.adapter)
        self._answers: dict[Hashable, Structure] = {}
        self._timesteps: list[float | Tensor | None] = []
        self._members: list[int] = []
        self._first: Call | None = None
        self._inputs: list[str] = []

    @torch.no_grad()
    def run(self, seed: int) -> Fingerprint:
        sampler = self._sampler
        heard = listening(self._clock, sampler.model, sampler.scheduler, self._watch)
        with layered(sampler.model, self._around), heard:
            sampler.run(seed)
        if self._first is None:
            raise CalibrationError(f"`run` never called the {type(sampler.model).__name__}")
        known = sampler_fingerprint(sampler)
        given = sha256("\n".join(self._inputs).encode()).hexdigest()[:16]
        sampling = {**(known.sampling or {}), f"{INPUTS}{seed}": given}
        return run_fingerprint(
            known.changed(sampling=sampling),
            self._first,
            timesteps=self._timesteps,
            branches=sampler.branches,
            steps=self._watch.step_settings,
            denoisers=self._members if takes_turns(sampler.model) else (),
        )

    def _around(self, call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen = self._reader.read(args, kwargs, self._clock.context, call.member)
        tick = self._clock.tick(seen)
        self._first = self._first or seen
        if tick.evaluation == len(self._timesteps):
            self._timesteps.append(timestep_of(seen))
            self._members.append(call.member)
        if not tick.evaluation:
            self._inputs += self._reader.conditioning(args, kwargs)
        kind = tick.branch, seen.layout, seen.variant
        if kind not in self._answers:
            self._answers[kind] = Structure.of(call(*args, **kwargs)).copied()
        return self._answers[kind].copied().output()
