"""How much an error of one site's output moves the denoiser's output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcache_core._clock import Tick
from smoothcache_core._course import COMPUTE, REUSE, STORE
from smoothcache_core._errors import CalibrationError
from smoothcache_core._exact import cut, joined
from smoothcache_core._response import Response, chosen_entries
from smoothcache_core._sites import Site
from smoothcache_core._tensors import Output
from smoothcache_core._trajectory import Answer, Stage, Trajectory
from smoothcache_core._wrap import Step, Wrapping

Array = NDArray[np.float64]

BLOCKS = 8
"""Blocks of one kind that are measured; the others are interpolated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Influence:
    """Influence of sites: change of the guided output per change of the site's output.

    Both changes are root mean squares over entries; the site's change is that from its previous
    output to its present one.

    Attributes:
        totals: Sums of what was measured, (3, sites, E), exact parts.
        counts: How often it was measured, (sites, E).
    """

    totals: Array
    counts: NDArray[np.int64]

    def values(self, sites: Sequence[Site]) -> Array:
        """Return the influence of every site at every evaluation, (sites, E).

        What was not measured is interpolated geometrically: over evaluations, then over blocks of a
        kind.
        """
        known = np.maximum(joined(self.totals), 1e-12) / np.maximum(self.counts, 1)
        measured = self.counts > 0
        logs = np.zeros(self.counts.shape)
        places = np.arange(self.counts.shape[1])
        rows = [index for index, row in enumerate(measured) if row.any()]
        for index in rows:
            where = np.flatnonzero(measured[index])
            logs[index] = np.interp(places, where, np.log(known[index, where]))
        for kind in {site.kind for site in sites}:
            _fill_blocks(logs, sites, kind, rows)
        return np.exp(logs)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Return the sums of all parts, the same in any order."""
        return cls(
            totals=np.sum([part.totals for part in parts], axis=0),
            counts=np.sum([part.counts for part in parts], axis=0),
        )

    def arrays(self) -> dict[str, Array]:
        """Return everything as arrays, for a file."""
        counts = self.counts.astype(np.float64)
        return {"influence.totals": self.totals, "influence.counts": counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self | None:
        """Return what `arrays` gave, None if it is not there."""
        if "influence.totals" not in arrays:
            return None
        counts = arrays["influence.counts"].astype(np.int64)
        return cls(totals=arrays["influence.totals"], counts=counts)


def _fill_blocks(logs: Array, sites: Sequence[Site], kind: str, measured: Sequence[int]) -> None:
    """Interpolate over the sites of a kind, which may lie in several lists of blocks."""
    members = [index for index, site in enumerate(sites) if site.kind == kind]
    known = [place for place, index in enumerate(members) if index in measured]
    if not known:
        logs[members] = 0.0  # as if the site's error were the output's
        return
    curves = logs[[members[place] for place in known]]
    for evaluation in range(logs.shape[1]):
        places = np.arange(len(members))
        logs[members, evaluation] = np.interp(places, known, curves[:, evaluation])


def measure_influence(
    stage: Stage,
    plain: Trajectory,
    response: Response,
    sites: Sequence[Site],
    products: Array,
    evaluations: Sequence[int],
    *,
    blocks: int = BLOCKS,
) -> Influence:
    """Replace one output at a time by its predecessor, at some evaluations of one run.

    Args:
        stage: The model and its sampler.
        plain: Its trajectory.
        response: What the solver makes of outputs; tells the weights of guidance.
        sites: The sites.
        products: Mean inner products of the sites' outputs in this run, (sites, E, lags + 1).
        evaluations: Where to measure, from 1 on.
        blocks: The most blocks of a kind to measure; the others are interpolated.
    """
    chosen = _spread_over_blocks(sites, blocks)
    totals = np.zeros((len(sites), plain.evaluations))
    counts = np.zeros(totals.shape, dtype=np.int64)
    if not evaluations:
        return Influence(totals=cut(totals), counts=counts)
    probe = _Replacing(stage, plain, response, sites, evaluations, chosen)
    for (index, evaluation), moved in probe.measure().items():
        own, before, both = (
            products[index, evaluation, 0],
            products[index, evaluation - 1, 0],
            products[index, evaluation, 1],
        )
        changed = np.sqrt(max(own + before - 2 * both, 0.0))
        if changed > 0:
            totals[index, evaluation] = moved / changed
            counts[index, evaluation] = 1
    try:
        return Influence(totals=cut(totals), counts=counts)
    except ValueError as error:
        raise CalibrationError(f"with an older output of a site: {error}") from error


class _Replacing:
    """Asks the model again and again, each time with another site's output replaced."""

    def __init__(
        self,
        stage: Stage,
        plain: Trajectory,
        response: Response,
        sites: Sequence[Site],
        evaluations: Sequence[int],
        chosen: Sequence[int],
    ) -> None:
        self._stage = stage
        self._plain = plain
        self._weights = response.weights
        self._measured = set(evaluations)
        self._chosen = chosen
        self._entries = chosen_entries(plain.latents.shape[1])
        self._wrapping = Wrapping(stage.model, sites, self)
        self._modes = [COMPUTE] * len(sites)
        self._values: dict[str, list[tuple[Output, ...]]] = {}
        self._branch = ""
        self._moved: dict[tuple[int, int], Tensor] = {}

    def measure(self) -> dict[tuple[int, int], float]:
        """Return how far the guided output moved, by (site, evaluation)."""
        try:
            self._stage.run(self._plain.seed, self._reply)
        finally:
            self._wrapping.remove()
        return {key: float(m.double().square().mean().sqrt()) for key, m in self._moved.items()}

    def _reply(self, number: int, tick: Tick, model: Callable[[], Any]) -> Answer:
        answer = self._plain.calls[number].answer
        self._branch = tick.branch
        if tick.evaluation in self._measured and not tick.broken:
            for index in self._chosen:
                self._note(number, tick, index, self._replaced(index, model))
        if tick.evaluation + 1 in self._measured:
            self._modes = [STORE] * len(self._modes)
            model()
        return answer

    def _replaced(self, index: int, model: Callable[[], Any]) -> Answer:
        self._modes = [COMPUTE] * len(self._modes)
        self._modes[index] = REUSE
        return Answer.of(model())

    def _note(self, number: int, tick: Tick, index: int, answer: Answer) -> None:
        latent = self._plain.calls[number].latent
        calls = len(self._plain.calls) // self._plain.evaluations
        parts = self._plain.parts // calls
        outputs = answer.signal(latent).float().reshape(parts, -1).cpu()
        first = number % calls * parts
        change = outputs - self._plain.outputs[tick.evaluation, first : first + parts]
        weights = torch.from_numpy(self._weights[tick.evaluation, first : first + parts]).float()
        moved = (weights @ change)[self._entries]
        known = self._moved.get((index, tick.evaluation))
        self._moved[index, tick.evaluation] = moved if known is None else known + moved

    # -- driver of the wrapped model

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        values = self._values.get(self._branch, [()] * len(self._modes))
        for index, wrapped in enumerate(self._wrapping.sites):
            mode = self._modes[index]
            wrapped.prepare(mode, values[index] if mode == REUSE else ())
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        if STORE in self._modes:
            kept = [wrapped.kept() for wrapped in self._wrapping.sites]
            self._values[self._branch] = kept
        return output

    def abort(self) -> None:
        """Nothing is kept that could be wrong."""


def _spread_over_blocks(sites: Sequence[Site], blocks: int) -> list[int]:
    """Return up to `blocks` sites of every kind, evenly spread over its blocks."""
    chosen = []
    for kind in dict.fromkeys(site.kind for site in sites):
        members = [index for index, site in enumerate(sites) if site.kind == kind]
        places = np.linspace(0, len(members) - 1, min(blocks, len(members))).round()
        chosen += [members[int(place)] for place in dict.fromkeys(places.tolist())]
    return chosen
