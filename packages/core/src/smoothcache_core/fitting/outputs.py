"""Fitting corrections of the outputs of a denoiser whose sites are filled, run after run.

What the sites keep is in the run, so runs cannot be halted and continued as for whole evaluations.
Every evaluation is fitted when its output is there, to the runs so far and this one, and goes on
with what was found. Where passes are calls of their own, the first is answered before the others
are known, so there it is answered by what the runs before this one found, and where the run is to
go is told as if it had been answered by what was found now.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.fitting.evaluations import with_correction
from smoothcache_core.fitting.normal_equations import NormalEquations
from smoothcache_core.fitting.rollout import attached
from smoothcache_core.fitting.unfolding import Unfolding
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.optimize.masks import Basis
from smoothcache_core.outputs.structures import (
    Structure,
    answer,
    denoised,
    like_output,
    rows_of,
)
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.wrapping.modules import Inner, layered


class OutputFitting:
    """Fits corrections for a schedule of sites.

    Args:
        sampler: The model and its sampler.
        schedule: What its sites compute and fill.
        response: How the solver answers to the denoiser's outputs.
        basis: What corrections combine.
    """

    def __init__(
        self, sampler: Sampler, schedule: Schedule, response: Response, basis: Basis
    ) -> None:
        self._sampler = sampler
        self._schedule = schedule.changed(corrected=None)
        self._response, self._basis = response, basis
        self._normals: dict[int, NormalEquations] = defaultdict(NormalEquations)

    @torch.no_grad()
    def run(self, plain: Trajectory, ends: Tensor) -> None:
        """Fit along the cached run of one seed.

        Args:
            plain: Its plain run.
            ends: Where the run is to be after every evaluation, (E, n).
        """
        sampler = self._sampler
        clock = Clock(branches=sampler.branches)
        reader = CallReader(sampler.model, sampler.adapter)
        unfolding = Unfolding(plain, self._response, ends)
        one = _Run(plain, unfolding, self._basis)

        def correct(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tick = clock.tick(reader.read(args, kwargs, clock.context, call.member))
            latent = reader.latent(args, kwargs)
            output = call(*args, **kwargs)
            if not unfolding.corrects(tick.evaluation):
                one.note(tick, latent, output)
                return output
            before = now = self._known(tick.evaluation)
            if one.note(tick, latent, output):
                self._normals[tick.evaluation].add(*one.equations(tick.evaluation))
                now = self._known(tick.evaluation)
                one.give(tick.evaluation, now)
            found = now if one.calls == 1 else before
            return output if found is None else one.corrected(tick, latent, output, found)

        with (
            attached(sampler, self._schedule),
            layered(sampler.model, correct),
            listening(clock, sampler.model, sampler.scheduler),
        ):
            sampler.final_latent(plain.seed)

    def _known(self, evaluation: int) -> Array | None:
        """Return the coefficients that the runs so far found; None if there were none."""
        return self._normals[evaluation].solve() if evaluation in self._normals else None

    @property
    def schedule(self) -> Schedule:
        """The schedule with the corrections found so far."""
        corrected = None
        for evaluation, normal in sorted(self._normals.items()):
            corrected = with_correction(corrected, evaluation, normal.solve(), self._basis)
        return self._schedule.changed(corrected=corrected)


class _Run:
    """What one run gave so far.

    Attributes:
        calls: Calls of one evaluation.
    """

    def __init__(self, plain: Trajectory, unfolding: Unfolding, basis: Basis) -> None:
        self._plain, self._unfolding, self._basis = plain, unfolding, basis
        self.calls = len(plain.calls) // plain.evaluations
        self._passes: list[Tensor] = []
        self._outputs: dict[str, list[Structure]] = defaultdict(list)

    def note(self, tick: Tick, latent: Any, output: Any) -> bool:
        """Note the output of a call; return whether it is the last of its evaluation."""
        made = Structure.of(output).copied()
        self._outputs[tick.branch].insert(0, made)
        signal = made.signal(rows_of(latent), self._plain.part).float().cpu()
        entries = denoised(self._plain.argument, self._plain.part).numel()
        self._passes.append(signal.reshape(-1, entries))
        if len(self._passes) < self.calls:
            return False
        outputs = self._plain.taken(torch.cat(self._passes))
        self._unfolding.take(tick.evaluation, outputs, None)
        self._passes = []
        return True

    def equations(self, evaluation: int) -> tuple[list[Tensor], Tensor]:
        """Return what a corrected output is made of, and what it is to be."""
        run, terms = self._unfolding, self._basis.terms
        found = [run.guide(evaluation, y) for y in run.history[:terms]]
        if self._basis.use_input:
            found.append(run.latent(evaluation))
        return found, run.landing(evaluation)

    def give(self, evaluation: int, found: Array | None) -> None:
        """Note what the solver gets."""
        if found is not None:
            parts = zip(found.tolist(), self.equations(evaluation)[0], strict=True)
            self._unfolding.change(evaluation, sum((c * r for c, r in parts), torch.zeros(())))

    def corrected(self, tick: Tick, latent: Any, output: Any, found: Array) -> Any:
        """Return a corrected output."""
        count = len(found) - self._basis.use_input
        kept = self._outputs[tick.branch][:count]
        latents = ()
        if self._basis.use_input:
            latents = ((like_output(latent, kept[0], self._plain.part), float(found[-1])),)
        del output
        return answer(kept, found[:count].tolist(), latents)
