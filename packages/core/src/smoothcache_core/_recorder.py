"""Recording one run of the unmodified model: what `calibrate` sees."""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smoothcache_core._calibration import Calibration, Errors, quantised, quantised_squares
from smoothcache_core._calls import Call, CallReader
from smoothcache_core._clock import Clock, Scheduler, Tick, listening
from smoothcache_core._cost import Cost, SiteCost, flop_counter
from smoothcache_core._errors import CalibrationError
from smoothcache_core._exact import cut
from smoothcache_core._fingerprint import Fingerprint, call_fingerprint
from smoothcache_core._sites import Adapter
from smoothcache_core._tensors import Output, flat, is_output, map_tensors, nbytes
from smoothcache_core._trajectory import (
    Answer,
    CallRecord,
    Trajectory,
    rows_of,
    trajectory,
)
from smoothcache_core._wrap import Step, Wrapping


@dataclass
class _Pair:
    """Numerator and denominator, per sample, of one site, branch, evaluation and lag."""

    numerator: Tensor
    denominator: Tensor

    def add(self, other: "_Pair") -> None:
        self.numerator += other.numerator
        self.denominator += other.denominator


@dataclass
class _Trace:
    """What one site did in the run so far.

    `pairs` is keyed by (branch, lag, evaluation), `history` by (branch, call in the evaluation).
    `products` are inner products with the output `lag` before, by (lag, evaluation), of `entries`
    entries each.
    `place` tells when it was first called, among the sites.
    """

    path: str
    place: int = -1
    pairs: dict[tuple[str, int, int], _Pair] = field(default_factory=dict)
    history: dict[tuple[str, int], deque[tuple[int, Output]]] = field(default_factory=dict)
    products: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    entries: int = 0
    calls: int = 0
    flops: int = 0
    bytes: int = 0

    def add(self, key: tuple[str, int, int], pair: _Pair) -> None:
        """Add a pair to what other calls of the same evaluation gave."""
        known = self.pairs.setdefault(key, pair)
        if known is not pair:
            known.add(pair)

    def add_product(self, key: tuple[int, int], product: Tensor) -> None:
        """Add an inner product to what other calls of the same evaluation gave."""
        known = self.products.get(key)
        self.products[key] = product if known is None else known + product


class Recorder:
    """Records runs. Told about the denoiser's calls as a driver, about the sites' by probes."""

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        max_lag: int,
        samples_per_run: int,
        branches: Sequence[str],
        fingerprint: Fingerprint,
        references: Literal["device", "cpu"],
    ) -> None:
        self._model = model
        self._sites = tuple(adapter.sites(model))
        self._reader = CallReader(model, adapter)
        self._max_lag = max_lag
        self._samples = samples_per_run
        self._branches = tuple(branches)
        self._fingerprint = fingerprint
        self._references = references
        self.scheduler: Scheduler | None = None
        self.whole = True
        self._cost: Cost | None = None

    def run(
        self, sample: Callable[[int], object], seed: int
    ) -> tuple[Calibration, Trajectory | CalibrationError]:
        """Record the run of one seed.

        Returns:
            The errors and products of the sites; and the run as a whole, or why it is of no use.
        """
        self._clock = Clock(branches=self._branches)
        self._traces = [_Trace(site.path) for site in self._sites]
        self._places = itertools.count()
        self._flops = 0
        self._counter: FlopCounterMode | None = None
        self._timesteps: list[float | Tensor | None] = []
        self._call: Call | None = None
        self._calls: list[CallRecord] = []
        self._unfit: CalibrationError | None = None
        self._output_bytes = 0
        probes = [_SiteProbe(self, trace) for trace in self._traces]
        wrapping = Wrapping(self._model, self._sites, self, probes=probes)
        try:
            with listening(self._clock, self._model, self.scheduler):
                result = sample(seed)
        finally:
            wrapping.remove()
        return self._result(seed), self._trajectory(seed, result)

    def _trajectory(self, seed: int, result: object) -> Trajectory | CalibrationError:
        if not self.whole:
            return CalibrationError("whole runs were not recorded")
        if self._unfit is not None:
            return self._unfit
        try:
            return trajectory(seed, self._calls, result)
        except CalibrationError as error:
            return error

    # -- driver

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        call = self._reader.read(args, kwargs, self._clock.context)
        tick = self._clock.tick(call)
        if tick.new_run and self._call is not None:
            raise CalibrationError(
                f"one call of `sample` ran the sampler twice (or its timesteps went back to the "
                f"start after {tick.ended_at} evaluations); it must run it once"
            )
        self._call = self._call or call
        if tick.evaluation == len(self._timesteps):
            self._timesteps.append(_timestep(call))
        self._begin_evaluation(tick, call)
        if self.whole and self._unfit is None:
            self._see(self._reader.latent(args, kwargs))
        return Step(args, kwargs)

    def _see(self, latent: Any) -> None:
        try:
            self._latent = rows_of(latent).detach().clone()
        except CalibrationError as error:
            self._unfit = error

    def _begin_evaluation(self, tick: Tick, call: Call) -> None:
        self._tick = tick
        self._batch = call.batch
        for trace in self._traces:
            trace.calls = 0
        if self._cost is None and tick.evaluation == 0:
            self._counter = flop_counter()
            self._counter.__enter__()

    def end(self, output: Any) -> Any:
        self._stop_counting()
        silent = [s.path for s, t in zip(self._sites, self._traces, strict=True) if not t.calls]
        if silent and self._tick.evaluation == 0:
            raise CalibrationError(
                f"{silent[0]!r} ({len(silent)} of {len(self._sites)} sites) is never called as a "
                f"module by {type(self._model).__name__}; this adapter does not fit the model"
            )
        if self._tick.evaluation == 0:
            self._output_bytes += Answer.of(output).bytes
        if self.whole and self._unfit is None:
            self._record(output)
        return output

    def _record(self, output: Any) -> None:
        call = CallRecord(
            evaluation=self._tick.evaluation,
            branch=self._tick.branch,
            latent=self._latent,
            answer=Answer.of(output),
        )
        self._calls.append(call)

    def abort(self) -> None:
        self._stop_counting()

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._flops += self._counter.get_total_flops()
            self._counter = None

    # -- probes

    def flops(self) -> int:
        return self._counter.get_total_flops() if self._counter is not None else 0

    @torch.no_grad()
    def observe(self, trace: _Trace, output: Output, flops: int) -> None:
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
            trace.flops += flops
            trace.bytes += nbytes(output)
        if tick.evaluation == 0:
            trace.entries += sum(tensor.numel() for tensor in flat(output))
        self._compare(trace, output, tick)
        trace.calls += 1

    def _compare(self, trace: _Trace, output: Output, tick: Tick) -> None:
        key = (tick.branch, trace.calls)
        history = trace.history.setdefault(key, deque(maxlen=self._max_lag))
        if not history:  # with itself, to see whether it is finite
            trace.add((tick.branch, 0, tick.evaluation), self._pair(output, output))
        precise = [tensor.double().flatten() for tensor in flat(output)]
        trace.add_product((0, tick.evaluation), _product(precise, precise))
        for evaluation, earlier in history:
            lag = tick.evaluation - evaluation
            if lag <= self._max_lag:
                trace.add((tick.branch, lag, evaluation), self._pair(earlier, output))
                trace.add_product((lag, tick.evaluation), _product(flat(earlier), precise))
        history.append((tick.evaluation, map_tensors(self._reference, output)))

    def _reference(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", copy=True) if self._references == "cpu" else tensor.clone()

    def _pair(self, earlier: Output, later: Output) -> _Pair:
        olds, news = flat(earlier), flat(later)
        if [t.shape for t in olds] != [t.shape for t in news]:
            infinite = torch.full((self._samples,), torch.inf, device=news[0].device)
            return _Pair(infinite, torch.ones_like(infinite))
        pair = None
        for old, new in zip(olds, news, strict=True):
            new32 = new.float()
            difference = (old.to(new.device).float() - new32).abs_()
            part = _Pair(self._per_sample(difference), self._per_sample(new32.abs()))
            if pair is None:
                pair = part
            else:
                pair.add(part)
        assert pair is not None
        return pair

    def _per_sample(self, values: Tensor) -> Tensor:
        """Sum over all entries of each sample, (samples,)."""
        rows = max(self._batch, 1)
        if self._samples == 1:
            return values.sum().reshape(1)
        if values.numel() % rows or rows % self._samples:
            raise CalibrationError(
                f"a site's output of shape {tuple(values.shape)} and a batch of {rows} rows cannot "
                f"be divided into {self._samples} samples; set samples_per_run=1"
            )
        return values.reshape(rows // self._samples, self._samples, -1).sum(dim=(0, 2))

    # -- result

    def _result(self, seed: int) -> Calibration:
        if self._call is None:
            raise CalibrationError(
                f"`sample` never called the {type(self._model).__name__} that is calibrated"
            )
        fingerprint = self._complete_fingerprint(self._call)
        branches = tuple(dict.fromkeys(b for t in self._traces for b, _ in t.history))
        errors = self._errors(branches)
        finite = np.where(np.isfinite(errors), errors, np.inf)
        return Calibration(
            sites=self._sites,
            branches=branches,
            totals=_sum(errors, quantised(finite)),
            squares=_sum(errors, quantised_squares(finite)),
            samples=self._samples,
            seeds=(seed,),
            fingerprint=fingerprint,
            cost=self._total_cost(),
            products=self._products(),
        )

    def _complete_fingerprint(self, call: Call) -> Fingerprint:
        timesteps = tuple(float(t) for t in self._timesteps if t is not None)
        update = call_fingerprint(call).model_dump(exclude_none=True, exclude={"versions"})
        update |= {"evaluations": self._clock.count, "branches": self._branches}
        update |= {"timesteps": timesteps if len(timesteps) == self._clock.count else None}
        fingerprint = self._fingerprint.model_copy(update=update)
        expected = self._fingerprint.evaluations
        if expected is not None and expected != self._clock.count:
            raise CalibrationError(
                f"this run had {self._clock.count} evaluations, the one before {expected}: a "
                "solver whose number of evaluations depends on the data has no static schedule"
            )
        self._fingerprint = self._fingerprint.model_copy(update={"evaluations": self._clock.count})
        return fingerprint

    def _total_cost(self) -> Cost:
        if self._cost is None:
            costs = [
                SiteCost(path=s.path, kind=s.kind, block=s.block, macs=t.flops // 2, bytes=t.bytes)
                for s, t in zip(self._sites, self._traces, strict=True)
            ]
            size = self._output_bytes
            self._cost = Cost(total=self._flops // 2, sites=tuple(costs), output_bytes=size)
        return self._cost

    def _products(self) -> Errors:
        """Return the mean inner products, (3, sites, evaluations, lags + 1), summed over samples.

        Entry [s, i, k] is of evaluations i and i - k; 0 where there is none.
        """
        products = np.zeros((len(self._sites), self._clock.count, self._max_lag + 1))
        for index, trace in enumerate(self._traces):
            lags, evaluations = np.transpose(list(trace.products))
            values = torch.stack([p.to("cpu") for p in trace.products.values()])
            scale = self._samples / max(trace.entries, 1)
            products[index, evaluations, lags] = values.numpy() * scale
        try:
            return cut(products)
        except ValueError as error:
            raise CalibrationError(f"the outputs of a site are too large: {error}") from error

    def _errors(self, branches: Sequence[str]) -> Errors:
        """Return the errors, (sites, branches, lags, evaluations, samples), in one transfer."""
        shape = (len(self._sites), len(branches), self._max_lag, self._clock.count, self._samples)
        errors = np.full(shape, np.nan)
        places, pairs = [], []
        for index, trace in enumerate(self._traces):
            for (branch, lag, evaluation), pair in trace.pairs.items():
                places.append((index, branches.index(branch), lag, evaluation))
                pairs.append(torch.stack((pair.numerator, pair.denominator)))
        values = torch.stack(pairs).double().cpu().numpy()
        self._refuse_nan(values, places)
        site, branch, lag, evaluation = np.transpose(places)
        measured = lag > 0
        where = (site[measured], branch[measured], lag[measured] - 1, evaluation[measured])
        errors[where] = _ratio(values[measured, 0], values[measured, 1])
        return errors

    def _refuse_nan(self, values: Errors, places: Sequence[tuple[int, int, int, int]]) -> None:
        """Name the site that was called first, in the first evaluation that is not finite."""
        later = ~np.isfinite(values[:, 1])
        found = []
        for index in np.flatnonzero((np.isnan(values[:, 0]) | later).any(axis=1)).tolist():
            site, _, lag, evaluation = places[index]
            when = evaluation + lag if later[index].any() else evaluation
            found.append((when, self._traces[site].place, site))
        if not found:
            return
        evaluation, _, site = min(found)
        raise CalibrationError(
            f"{self._sites[site].path!r} gave NaN or infinity at evaluation {evaluation}; "
            "calibrate in a data type that holds the model's activations"
        )


@dataclass
class _SiteProbe:
    """Shows the outputs of one site to the recorder."""

    recorder: Recorder
    trace: _Trace
    before: int = 0

    def enter(self) -> None:
        self.before = self.recorder.flops()

    def leave(self, output: Output) -> None:
        self.recorder.observe(self.trace, output, self.recorder.flops() - self.before)


def _product(earlier: Sequence[Tensor], later: Sequence[Tensor]) -> Tensor:
    """Return the inner product, a float64 scalar; 0 where shapes differ."""
    if [old.numel() for old in earlier] != [new.numel() for new in later]:
        return torch.zeros((), dtype=torch.float64, device=later[0].device)
    pairs = zip(earlier, later, strict=True)
    products = [new @ old.to(new.device).double().flatten() for old, new in pairs]
    return torch.stack(products).sum()


def _timestep(call: Call) -> float | Tensor | None:
    if call.timestep is not None or call.tensor is None:
        return call.timestep
    return call.tensor.detach().reshape(-1)[0].clone()


def _ratio(numerator: Errors, denominator: Errors) -> Errors:
    """Divide; an output that is zero and stays zero has error 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0.0, 0.0, numerator / denominator)


def _sum(errors: Errors, values: Errors) -> Errors:
    """Sum over samples; NaN where nothing was measured."""
    return np.where(np.isnan(errors).all(axis=-1), np.nan, values.sum(axis=-1))
