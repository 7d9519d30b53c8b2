"""SmoothCache's calibration: errors are measured as the user samples, `disable` writes a file."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calibrating.traces import Comparison, Trace
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.compat.blocks import BlockClasses, block_adapter, listed
from smoothcache_core.compat.switched import Switched
from smoothcache_core.errors import CalibrationError, warn
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.outputs.tensors import Output
from smoothcache_core.sources.smooth import PUBLISHED_LAG, scan
from smoothcache_core.wrapping.denoiser import Step, Wrapping

logger = logging.getLogger(__name__)


class CalibrationHelper(Switched):
    """Measures how outputs of components change, and writes a schedule by SmoothCache's rule.

    Any number of runs may be sampled between `enable` and `disable`: their errors are averaged.

    Args:
        model: The denoiser that the sampler calls.
        block_classes: Classes of the blocks, or their names; one, or several.
        components_to_wrap: Names of the blocks' attributes that are measured.
        calibration_lookahead: Longest reuse that is measured, in evaluations, at least 1.
        calibration_threshold: Largest relative L1 error of a reuse, at least 0; with 0 all is
            computed.
        schedule_length: Evaluations of a run; where runs have another number, theirs counts and a
            warning says so.
        log_file: The file that the schedule is written to; folders are made.

    Attributes:
        schedule: The schedule after `disable`, rows of 0 and 1 by component; empty before.

    Raises:
        AdapterError: The model has no such blocks or components.
        ValueError: `calibration_lookahead` is less than 1.
        OutputError: The file cannot be written there.
    """

    def __init__(
        self,
        model: nn.Module,
        block_classes: BlockClasses,
        components_to_wrap: Sequence[str],
        calibration_lookahead: int = PUBLISHED_LAG,
        calibration_threshold: float = 0.0,
        schedule_length: int = 50,
        log_file: str | Path = "calibration_schedule.json",
    ) -> None:
        if calibration_lookahead < 1:
            raise ValueError(f"calibration_lookahead is at least 1, got {calibration_lookahead}")
        check_output(log_file)
        self.model = model
        self.block_classes = listed(block_classes)
        self.components_to_wrap = list(components_to_wrap)
        self.lookahead = calibration_lookahead
        self.threshold = calibration_threshold
        self.schedule_length = schedule_length
        self.log_file = log_file
        self.schedule: dict[str, list[int]] = {}
        self._adapter = block_adapter(model, block_classes, components_to_wrap)
        self._observer: _Observer | None = None

    @property
    def enabled(self) -> bool:
        """Whether runs are measured."""
        return self._observer is not None

    def enable(self) -> None:
        """Begin to measure; where that is so already, what was measured is forgotten.

        Raises:
            AttachError: A cache is on the model.
        """
        if self._observer is not None:
            self._observer.remove()
        self._observer = _Observer(self.model, self._adapter, self.lookahead)

    def disable(self) -> None:
        """Restore the model, and write the schedule; where nothing is measured, nothing happens.

        Raises:
            CalibrationError: No run was sampled, or runs had different numbers of evaluations.
            OutputError: The file cannot be written.
        """
        if self._observer is None:
            return
        observer, self._observer = self._observer, None
        observer.remove()
        self.schedule = self.generate_schedule(observer.errors())
        rows = ",\n".join(f"  {json.dumps(key)}: {row}" for key, row in self.schedule.items())
        write_atomically(self.log_file, f"{{\n{rows}\n}}\n".encode())
        logger.info("the schedule was written to %s", self.log_file)

    def generate_schedule(self, errors: Array) -> dict[str, list[int]]:
        """Return rows of 0 and 1 by component: the scan of arXiv 2411.10510 on mean errors.

        Args:
            errors: Relative L1 errors of reuse, (sites, lags, evaluations), NaN where none was
                measured; entry [:, k - 1, i] is of the output of evaluation i at i + k.
        """
        if errors.shape[-1] != self.schedule_length:
            warn(
                f"schedule_length is {self.schedule_length}, but runs had {errors.shape[-1]} "
                "evaluations: the schedule is for those"
            )
        sites = self._adapter.sites(denoiser(self.model))
        rows = {}
        for kind in dict.fromkeys(site.kind for site in sites):
            of_kind = errors[[site.kind == kind for site in sites]]
            mean = np.where(np.isnan(of_kind).all(axis=0), np.inf, _mean(of_kind))
            rows[kind] = list(scan(mean, self.threshold))
        return rows

    def abandon(self) -> None:
        """Restore the model; what was measured is forgotten."""
        if self._observer is not None:
            observer, self._observer = self._observer, None
            observer.remove()


class DiffuserCalibrationHelper(CalibrationHelper):
    """The helper for diffusers' models of `BasicTransformerBlock`; `attn1` unless others are named.

    Args:
        model: The denoiser, such as `pipe.transformer`.
        block_classes: Classes of the blocks; None is `BasicTransformerBlock`.
        components_to_wrap: Names of their attributes; None is `["attn1"]`.
        calibration_lookahead: Longest reuse that is measured, in evaluations, at least 1.
        calibration_threshold: Largest relative L1 error of a reuse, at least 0.
        schedule_length: Evaluations of a run, see `CalibrationHelper`.
        log_file: The file that the schedule is written to.
    """

    def __init__(
        self,
        model: nn.Module,
        block_classes: BlockClasses | None = None,
        components_to_wrap: Sequence[str] | None = None,
        calibration_lookahead: int = PUBLISHED_LAG,
        calibration_threshold: float = 0.0,
        schedule_length: int = 50,
        log_file: str | Path = "calibration_schedule.json",
    ) -> None:
        super().__init__(
            model,
            block_classes or "BasicTransformerBlock",
            components_to_wrap or ["attn1"],
            calibration_lookahead,
            calibration_threshold,
            schedule_length,
            log_file,
        )


def _mean(errors: Array) -> Array:
    """Return the mean over sites, (lags, evaluations), of those that were measured."""
    known = ~np.isnan(errors)
    return np.where(known, errors, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


class _Observer:
    """Watches a model while somebody else samples with it, run after run."""

    def __init__(self, model: nn.Module, adapter: Any, lookahead: int) -> None:
        inside = denoiser(model)
        self._sites = adapter.sites(inside)
        self._reader = CallReader(inside, adapter)
        self._clock = Clock()
        self._comparison = Comparison(max_lag=lookahead, samples=1, references="device")
        self._tick: Tick | None = None
        self._batch = 1
        self._traces = self._new_traces()
        self._runs: list[Array] = []
        probes = [_Probe(self, number) for number in range(len(self._sites))]
        self._wrapping = Wrapping(model, self._sites, self, probes=probes)
        self._wrapping.add(listening(self._clock, inside, None))

    def _new_traces(self) -> list[Trace]:
        return [Trace(site.path) for site in self._sites]

    def remove(self) -> None:
        """Restore the model."""
        self._wrapping.remove()

    def errors(self) -> Array:
        """Return the mean errors of all runs, (sites, lags, evaluations).

        Raises:
            CalibrationError: There was no run, or runs differ in their numbers of evaluations.
        """
        if self._tick is not None:
            self._finish(self._clock.count)
        lengths = sorted({run.shape[-1] for run in self._runs})
        if len(lengths) != 1:
            found = f"runs of {lengths} evaluations" if lengths else "no run at all"
            raise CalibrationError(
                "sample at least one run between enable() and disable(), and all of them with as "
                f"many evaluations; there were {found}"
            )
        return np.mean(self._runs, axis=0)

    def _finish(self, evaluations: int) -> None:
        """Take the errors of a run, of all its passes."""
        passes = list({branch: None for trace in self._traces for branch, _ in trace.history})
        errors = self._comparison.errors(self._traces, passes, evaluations)
        self._runs.append(errors[..., 0].mean(axis=1))
        self._traces = self._new_traces()

    # ------------------------------------------------------------------ driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        """See `Driver.begin`."""
        call = self._reader.read(args, kwargs, self._clock.context, member)
        tick = self._clock.tick(call)
        if tick.new_run and tick.ended_at:
            self._finish(tick.ended_at)
        self._tick, self._batch = tick, call.batch
        for trace in self._traces:
            trace.calls = 0
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        """See `Driver.end`."""
        return output

    def abort(self) -> None:
        """See `Driver.abort`: what was measured of the run is of no use."""
        self._clock.abandon()
        self._tick, self._traces = None, self._new_traces()

    def see(self, number: int, output: Output) -> None:
        """Compare the output of a site with those before."""
        assert self._tick is not None
        trace = self._traces[number]
        trace.place = max(trace.place, 0)
        self._comparison.add(trace, output, self._tick, self._batch)
        trace.calls += 1


class _Probe:
    """Shows the outputs of one site to the observer."""

    def __init__(self, observer: _Observer, number: int) -> None:
        self._observer, self._number = observer, number

    def enter(self) -> None:
        """The site is called."""

    def leave(self, output: Output) -> None:
        """The site gave an output."""
        self._observer.see(self._number, output)
