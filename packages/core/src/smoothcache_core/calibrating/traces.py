"""What the sites did in a run: traces of them, and the errors and products that come of these.

`Comparison` adds one output after the other to the `Trace` of its site, and reads the results off
when the run is over.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.outputs.tensors import Output, flat, map_tensors


@dataclass
class _Pair:
    """Numerator and denominator, per sample, of one site, branch, evaluation and lag."""

    numerator: Tensor
    denominator: Tensor

    def add(self, other: "_Pair") -> None:
        self.numerator += other.numerator
        self.denominator += other.denominator


Turn = tuple[str, int]
"""A conditioning pass, and which of the denoisers that take turns makes it."""


@dataclass
class Trace:
    """What one site did in the run so far.

    Attributes:
        path: Path of the site in the denoiser.
        place: When it was first called, among the sites; below 0 until then.
        pairs: Keyed by (branch, lag, evaluation).
        history: Outputs that later ones are compared with, and their evaluations, keyed by (branch,
            call in the evaluation); None where another denoiser has taken over since, whose outputs
            are infinitely far.
        products: Inner products with the output `lag` before, keyed by (lag, evaluation).
        entries: How many entries each of these is of.
        calls: Calls in the evaluation under way.
        flops: Of the calls that were counted, by pass and denoiser.
        bytes: Of their outputs, likewise.
        floats: Entries of floating point in these.
    """

    path: str
    place: int = -1
    pairs: dict[tuple[str, int, int], _Pair] = field(default_factory=dict)
    history: dict[tuple[str, int], deque[tuple[int, Output | None]]] = field(default_factory=dict)
    products: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    entries: int = 0
    calls: int = 0
    flops: Counter[Turn] = field(default_factory=Counter[Turn])
    bytes: Counter[Turn] = field(default_factory=Counter[Turn])
    floats: Counter[Turn] = field(default_factory=Counter[Turn])

    def add(self, key: tuple[str, int, int], pair: _Pair) -> None:
        """Add a pair to what other calls of the same evaluation gave."""
        known = self.pairs.setdefault(key, pair)
        if known is not pair:
            known.add(pair)

    def add_product(self, key: tuple[int, int], product: Tensor) -> None:
        """Add an inner product to what other calls of the same evaluation gave."""
        known = self.products.get(key)
        self.products[key] = product if known is None else known + product


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How outputs of a site are compared with its earlier ones.

    Attributes:
        max_lag: The most evaluations between two outputs that are compared.
        samples: Samples in the batch of the run.
        references: Where earlier outputs are kept: on their device, or on the CPU.
    """

    max_lag: int
    samples: int
    references: Literal["device", "cpu"]

    def add(self, trace: Trace, output: Output, tick: Tick, batch: int) -> None:
        """Compare an output with the earlier ones in the trace of its site, then keep it there.

        Args:
            trace: What the site did so far; its `calls` tell which call of the evaluation this is.
            output: The site's output.
            tick: Where the run is.
            batch: Rows in the denoiser's batch.

        Raises:
            CalibrationError: The output cannot be divided into samples.
        """
        key = (tick.branch, trace.calls)
        history = trace.history.setdefault(key, deque(maxlen=self.max_lag))
        if tick.handed_over:
            _forget(history)
        if not history:  # with itself, to see whether it is finite
            trace.add((tick.branch, 0, tick.evaluation), self._pair(output, output, batch))
        precise = [tensor.double().flatten() for tensor in flat(output)]
        trace.add_product((0, tick.evaluation), _product(precise, precise))
        for evaluation, earlier in history:
            lag = tick.evaluation - evaluation
            if lag <= self.max_lag:
                trace.add((tick.branch, lag, evaluation), self._pair(earlier, output, batch))
                known = [] if earlier is None else flat(earlier)
                trace.add_product((lag, tick.evaluation), _product(known, precise))
        history.append((tick.evaluation, map_tensors(self._reference, output)))

    def _reference(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", copy=True) if self.references == "cpu" else tensor.clone()

    def _pair(self, earlier: Output | None, later: Output, batch: int) -> _Pair:
        olds, news = [] if earlier is None else flat(earlier), flat(later)
        if [t.shape for t in olds] != [t.shape for t in news]:
            infinite = torch.full((self.samples,), torch.inf, device=news[0].device)
            return _Pair(infinite, torch.ones_like(infinite))
        pair = None
        for old, new in zip(olds, news, strict=True):
            new32 = new.float()
            difference = (old.to(new.device).float() - new32).abs_()
            numerator = self._per_sample(difference, batch)
            part = _Pair(numerator, self._per_sample(new32.abs(), batch))
            if pair is None:
                pair = part
            else:
                pair.add(part)
        assert pair is not None
        return pair

    def _per_sample(self, values: Tensor, batch: int) -> Tensor:
        """Sum over all entries of each sample, (samples,)."""
        rows = max(batch, 1)
        if self.samples == 1:
            return values.sum().reshape(1)
        if values.numel() % rows or rows % self.samples:
            raise CalibrationError(
                f"a site's output of shape {tuple(values.shape)} and a batch of {rows} rows cannot "
                f"be divided into {self.samples} samples; set samples=1 and return the final "
                "latent as that of one, (1, ...)"
            )
        return values.reshape(rows // self.samples, self.samples, -1).sum(dim=(0, 2))

    def products(self, traces: Sequence[Trace], evaluations: int) -> Array:
        """Return the mean inner products, (3, sites, evaluations, lags + 1), summed over samples.

        Entry [s, i, k] is of evaluations i and i - k; 0 where there is none.

        Raises:
            CalibrationError: A product is not finite or too large.
        """
        products = np.zeros((len(traces), evaluations, self.max_lag + 1))
        for index, trace in enumerate(traces):
            lags, at = np.transpose(list(trace.products))
            values = torch.stack([p.to("cpu") for p in trace.products.values()])
            scale = self.samples / max(trace.entries, 1)
            products[index, at, lags] = values.numpy() * scale
        try:
            return cut(products)
        except ValueError as error:
            raise CalibrationError(f"the outputs of a site are too large: {error}") from error

    def errors(self, traces: Sequence[Trace], branches: Sequence[str], evaluations: int) -> Array:
        """Return the errors, (sites, branches, lags, evaluations, samples), in one transfer.

        NaN where nothing was measured.

        Raises:
            CalibrationError: A site gave NaN or infinity.
        """
        shape = (len(traces), len(branches), self.max_lag, evaluations, self.samples)
        errors = np.full(shape, np.nan)
        places, pairs = [], []
        for index, trace in enumerate(traces):
            for (branch, lag, evaluation), pair in trace.pairs.items():
                places.append((index, branches.index(branch), lag, evaluation))
                pairs.append(torch.stack((pair.numerator, pair.denominator)))
        if not pairs:  # there are no sites
            return errors
        values = torch.stack(pairs).double().cpu().numpy()
        _refuse_nan(values, places, traces)
        site, branch, lag, evaluation = np.transpose(places)
        measured = lag > 0
        where = (site[measured], branch[measured], lag[measured] - 1, evaluation[measured])
        errors[where] = _ratio(values[measured, 0], values[measured, 1])
        return errors


def _forget(history: deque[tuple[int, Output | None]]) -> None:
    """Forget outputs, but not where they were: they are of another denoiser."""
    places = [(evaluation, None) for evaluation, _ in history]
    history.clear()
    history.extend(places)


def _refuse_nan(
    values: Array, places: Sequence[tuple[int, int, int, int]], traces: Sequence[Trace]
) -> None:
    """Name the site that was called first, in the first evaluation that is not finite."""
    later = ~np.isfinite(values[:, 1])
    found = []
    for index in np.flatnonzero((np.isnan(values[:, 0]) | later).any(axis=1)).tolist():
        site, _, lag, evaluation = places[index]
        when = evaluation + lag if later[index].any() else evaluation
        found.append((when, traces[site].place, site))
    if not found:
        return
    evaluation, _, site = min(found)
    raise CalibrationError(
        f"{traces[site].path!r} gave NaN or infinity at evaluation {evaluation}; "
        "calibrate in a data type that holds the model's activations"
    )


def _product(earlier: Sequence[Tensor], later: Sequence[Tensor]) -> Tensor:
    """Return the inner product, a float64 scalar; 0 where shapes differ."""
    if [old.numel() for old in earlier] != [new.numel() for new in later]:
        return torch.zeros((), dtype=torch.float64, device=later[0].device)
    pairs = zip(earlier, later, strict=True)
    products = [new @ old.to(new.device).double().flatten() for old, new in pairs]
    return torch.stack(products).sum()


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; an output that is zero and stays zero has error 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0.0, 0.0, numerator / denominator)
