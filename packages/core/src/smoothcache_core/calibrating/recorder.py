"""Recording one run of the unmodified model: what `calibrate` sees.

The recorder is told about every call and makes the calibration of the run; what the sites did is
kept and compared in `traces.py`.
"""

import itertools
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from smoothcache_core.calibrating.traces import Comparison, Trace, Turn
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.quantised import quantised, quantised_squares
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import Call, CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.calls.fingerprints import run_fingerprint, timestep_of
from smoothcache_core.calls.flops import flop_counter
from smoothcache_core.calls.watch import SchedulerWatch
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.outputs.structures import Structure, rows_of
from smoothcache_core.outputs.tensors import Output, flat, floating_entries, is_output, nbytes
from smoothcache_core.patching import undone_on_error
from smoothcache_core.relay import beside_of, takes_turns
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, trajectory
from smoothcache_core.schedule.cost import Cost, SiteCost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.wrapping.denoiser import Step, Wrapping, sites_of
from smoothcache_core.wrapping.modules import Inner, layer


class Recorder:
    """Records runs. Told about the denoiser's calls as a driver, about the sites' by probes."""

    def __init__(
        self,
        sampler: Sampler,
        max_lag: int,
        fingerprint: Fingerprint,
        references: Literal["device", "cpu"],
        *,
        trajectories: bool,
    ) -> None:
        self._sampler = sampler
        self._model = sampler.model
        self._sites = sites_of(sampler.adapter, sampler.model)
        self._reader = CallReader(sampler.model, sampler.adapter)
        self._fingerprint = fingerprint
        self._comparison = Comparison(
            max_lag=max_lag, samples=sampler.samples, references=references
        )
        self._trajectories = trajectories
        self._cost: Cost | None = None

    def run(self, seed: int) -> tuple[Calibration, Trajectory | CalibrationError]:
        """Record the run of one seed.

        Returns:
            The errors and products of the sites; and the run as a whole, or why it is of no use.
        """
        self._clock = Clock(branches=self._sampler.branches)
        self._watch = SchedulerWatch(self._sampler.scheduler)
        self._traces = [Trace(site.path) for site in self._sites]
        self._places = itertools.count()
        self._flops: Counter[Turn] = Counter()
        self._turns: Counter[Turn] = Counter()
        self._counted: dict[Turn, int] = {}
        self._counter: FlopCounterMode | None = None
        self._timesteps: list[float | Tensor | None] = []
        self._branches: dict[str, None] = {}
        self._members: list[int] = []
        self._call: Call | None = None
        self._calls: list[CallRecord] = []
        self._unfit: CalibrationError | None = None
        self._output_bytes = self._output_entries = 0
        probes = [_SiteProbe(self, trace) for trace in self._traces]
        wrapping = Wrapping(self._model, self._sites, self, probes=probes)
        try:
            with (
                self._counting_beside(),
                listening(self._clock, self._model, self._sampler.scheduler, self._watch),
            ):
                final = self._sampler.final_latent_if_known(seed)
        finally:
            wrapping.remove()
        return self._result(seed), self._trajectory(seed, final)

    def _trajectory(self, seed: int, final: Tensor | None) -> Trajectory | CalibrationError:
        if not self._trajectories:
            return CalibrationError("whole runs were not recorded")
        if self._unfit is not None:
            return self._unfit
        try:
            sampler = self._sampler
            return trajectory(seed, self._calls, final, samples=sampler.samples, part=sampler.part)
        except CalibrationError as error:
            return error

    # -- driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        """See `Driver.begin`."""
        call = self._reader.read(args, kwargs, self._clock.context, member)
        tick = self._clock.tick(call)
        if tick.new_run and self._call is not None:
            raise CalibrationError(
                "one call of `run` must run the sampler once, but its timesteps were back at the "
                f"start after {tick.ended_at} evaluations. If guidance calls the model twice per "
                'step, name the passes: branches=("cond", "uncond")'
            )
        self._call = self._call or call
        if tick.evaluation == len(self._timesteps):
            self._timesteps.append(timestep_of(call))
            self._members.append(member)
        self._begin_evaluation(tick, call)
        if self._trajectories and self._unfit is None:
            self._see(self._reader.latent(args, kwargs))
        return Step(args, kwargs)

    def _see(self, latent: Any) -> None:
        try:
            self._latent = rows_of(latent).detach().clone()
        except CalibrationError as error:
            self._unfit = error

    def _begin_evaluation(self, tick: Tick, call: Call) -> None:
        self._tick = tick
        self._branches[tick.branch] = None
        self._batch = call.batch
        for trace in self._traces:
            trace.calls = 0
        first = self._counted.setdefault((tick.branch, tick.member), tick.evaluation)
        self._turns[tick.branch, tick.member] += 1
        if self._cost is None and tick.evaluation == first:
            self._counter = flop_counter()
            self._counter.__enter__()

    def end(self, output: Any) -> Any:
        """See `Driver.end`."""
        self._stop_counting()
        silent = [trace.path for trace in self._traces if trace.place < 0]
        if silent and self._tick.evaluation == 0:
            raise CalibrationError(
                f"{silent[0]!r} ({len(silent)} of {len(self._sites)} sites) is never called as a "
                f"module by {type(self._model).__name__}; this adapter does not fit the model"
            )
        if self._tick.evaluation == 0:
            self._output_bytes += Structure.of(output).bytes
            self._output_entries += floating_entries(Structure.of(output).floating)
        if self._trajectories and self._unfit is None:
            self._record(output)
        return output

    def _record(self, output: Any) -> None:
        call = CallRecord(
            evaluation=self._tick.evaluation,
            branch=self._tick.branch,
            latent=self._latent,
            answer=Structure.of(output).copied(),
            timestep=self._timesteps[self._tick.evaluation],
        )
        self._calls.append(call)

    def abort(self) -> None:
        """See `Driver.abort`."""
        self._stop_counting()

    @contextmanager
    def _counting_beside(self) -> Generator[None]:
        """Count the work of what is called for the sake of the denoiser as the denoiser's."""

        def count(inner: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            turn = ("beside", inner.member)
            self._turns[turn] += 1
            if self._cost is not None or self._turns[turn] > 1:
                return inner(*args, **kwargs)
            with flop_counter() as counter:
                output = inner(*args, **kwargs)
            self._flops[turn] += counter.get_total_flops()
            return output

        with undone_on_error() as patches:
            for index, module in enumerate(beside_of(self._model)):
                patches.add(layer(module, count, index))
        with patches:
            yield

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._flops[self._tick.branch, self._tick.member] += self._counter.get_total_flops()
            self._counter = None

    # -- probes

    def flops(self) -> int:
        """Return the FLOPs of the evaluation so far; 0 where none are counted."""
        return self._counter.get_total_flops() if self._counter is not None else 0

    @torch.no_grad()
    def observe(self, trace: Trace, output: Output, flops: int) -> None:
        """Compare an output with the earlier ones of its site, then keep it."""
        tick = self._tick
        if not is_output(output):
            raise CalibrationError(
                f"{trace.path!r} gives a {type(output).__name__}; only a tensor or a tuple of "
                "tensors can be measured"
            )
        if trace.place < 0:
            trace.place = next(self._places)
        if self._counter is not None:
            trace.flops[tick.branch, tick.member] += flops
            trace.bytes[tick.branch, tick.member] += nbytes(output)
            trace.floats[tick.branch, tick.member] += floating_entries(flat(output))
        if tick.evaluation == 0:
            trace.entries += sum(tensor.numel() for tensor in flat(output))
        self._comparison.add(trace, output, tick, self._batch)
        trace.calls += 1

    # -- result

    def _result(self, seed: int) -> Calibration:
        if self._call is None:
            raise CalibrationError(
                f"`run` never called the {type(self._model).__name__} that is calibrated"
            )
        fingerprint = self._complete_fingerprint(self._call)
        branches = self._passes()
        errors = self._comparison.errors(self._traces, branches, self._clock.count)
        finite = np.where(np.isfinite(errors), errors, np.inf)
        return Calibration(
            sites=self._sites,
            branches=branches,
            totals=_sum(errors, quantised(finite)),
            squares=_sum(errors, quantised_squares(finite)),
            samples=self._comparison.samples,
            seeds=(seed,),
            fingerprint=fingerprint,
            cost=self._total_cost(),
            products=self._comparison.products(self._traces, self._clock.count),
        )

    def _passes(self) -> tuple[str, ...]:
        """Return the conditioning passes in which sites were seen; all of them without sites."""
        seen = dict.fromkeys(branch for trace in self._traces for branch, _ in trace.history)
        return tuple(seen or self._branches)

    def _complete_fingerprint(self, call: Call) -> Fingerprint:
        fingerprint = run_fingerprint(
            self._fingerprint,
            call,
            timesteps=self._timesteps,
            branches=self._sampler.branches,
            steps=self._watch.step_settings,
            denoisers=self._members if takes_turns(self._model) else (),
        )
        expected = self._fingerprint.evaluations
        if expected is not None and expected != self._clock.count:
            raise CalibrationError(
                f"this run had {self._clock.count} evaluations, the one before {expected}; solvers "
                "whose number of evaluations depends on the data cannot be cached"
            )
        self._fingerprint = self._fingerprint.changed(evaluations=self._clock.count)
        return fingerprint

    def _total_cost(self) -> Cost:
        if self._cost is None:
            costs = [
                SiteCost(
                    path=s.path,
                    kind=s.kind,
                    block=s.block,
                    macs=self._mean(t.flops) // 2,
                    bytes=self._mean(t.bytes),
                    entries=self._mean(t.floats),
                )
                for s, t in zip(self._sites, self._traces, strict=True)
            ]
            total, size = self._mean(self._flops) // 2, self._output_bytes
            self._cost = Cost(
                total=total,
                sites=tuple(costs),
                output_bytes=size,
                output_entries=self._output_entries,
            )
        return self._cost

    def _mean(self, counts: Mapping[Turn, int]) -> int:
        """Return the mean over evaluations of what was counted once of each denoiser."""
        return sum(counts.get(one, 0) * n for one, n in self._turns.items()) // self._clock.count


@dataclass
class _SiteProbe:
    """Shows the outputs of one site to the recorder."""

    recorder: Recorder
    trace: Trace
    before: int = 0

    def enter(self) -> None:
        self.before = self.recorder.flops()

    def leave(self, output: Output) -> None:
        self.recorder.observe(self.trace, output, self.recorder.flops() - self.before)


def _sum(errors: Array, values: Array) -> Array:
    """Sum over samples; NaN where nothing was measured."""
    return np.where(np.isnan(errors).all(axis=-1), np.nan, values.sum(axis=-1))
