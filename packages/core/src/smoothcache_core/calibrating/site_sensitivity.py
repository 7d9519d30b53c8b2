"""Measuring how much an error of each site moves the denoiser's output."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibrating.solver_response import chosen_entries
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.outputs.tensors import Output
from smoothcache_core.sampling.recording import recorded_calls
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.timeline import COMPUTE, REUSE, STORE
from smoothcache_core.wrapping.denoiser import Step, Wrapping

BLOCKS = 8
"""Blocks of one kind that are measured, each by one evaluation per probe; the others are
interpolated. On the digits model that is 246 denoiser calls instead of 2205, with rank correlation
0.91 to measuring everything (docs/how-it-works.md)."""


def measure_influence(
    sampler: Sampler,
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
        sampler: How a run is made; its model is called again.
        plain: The plain run's recorded trajectory.
        response: What the solver makes of outputs; tells the weights of guidance.
        sites: All sites of the model, in the order of `products`.
        products: Mean inner products of the sites' outputs in this run, (sites, E, lags + 1).
        evaluations: Where to measure, from 1 on.
        blocks: The most blocks of a kind to measure; the others are interpolated.
    """
    chosen = _spread_over_blocks(sites, blocks)
    totals = np.zeros((len(sites), plain.evaluations))
    counts = np.zeros(totals.shape, dtype=np.int64)
    if not evaluations:
        return Influence(totals=cut(totals), counts=counts)
    probe = _Replacing(sampler, plain, response, sites, evaluations, chosen)
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
        sampler: Sampler,
        plain: Trajectory,
        response: Response,
        sites: Sequence[Site],
        evaluations: Sequence[int],
        chosen: Sequence[int],
    ) -> None:
        self._sampler = sampler
        self._plain = plain
        self._weights = response.weights
        self._measured = set(evaluations)
        self._chosen = chosen
        self._entries = chosen_entries(plain.latents.shape[1])
        self._wrapping = Wrapping(sampler.model, sites, self)
        self._modes = [COMPUTE] * len(sites)
        self._values: dict[str, list[tuple[Output, ...]]] = {}
        self._branch = ""
        self._changes: dict[tuple[int, int], Tensor] = {}

    def measure(self) -> dict[tuple[int, int], float]:
        """Return how far the guided output moved, by (site, evaluation)."""
        try:
            recorded_calls(self._sampler, self._plain.seed, self._reply)
        finally:
            self._wrapping.remove()
        return {key: float(m.double().square().mean().sqrt()) for key, m in self._changes.items()}

    def _reply(self, number: int, tick: Tick, model: Callable[[], Any]) -> Structure:
        answer = self._plain.calls[number].answer
        self._branch = tick.branch
        if tick.evaluation in self._measured and not (tick.broken or tick.handed_over):
            for index in self._chosen:
                self._note(number, tick, index, self._replaced(index, model))
        if tick.evaluation + 1 in self._measured:
            self._modes = [STORE] * len(self._modes)
            model()
        return answer

    def _replaced(self, index: int, model: Callable[[], Any]) -> Structure:
        self._modes = [COMPUTE] * len(self._modes)
        self._modes[index] = REUSE
        return Structure.of(model()).copied()

    def _note(self, number: int, tick: Tick, index: int, answer: Structure) -> None:
        latent = self._plain.calls[number].latent
        calls = len(self._plain.calls) // self._plain.evaluations
        parts = self._plain.parts // calls
        outputs = answer.signal(latent, self._plain.part).float().reshape(parts, -1).cpu()
        outputs = self._plain.taken(outputs)
        first = number % calls * parts
        change = outputs - self._plain.outputs[tick.evaluation, first : first + parts]
        weights = torch.from_numpy(self._weights[tick.evaluation, first : first + parts]).float()
        changed = (weights @ change)[self._entries]
        known = self._changes.get((index, tick.evaluation))
        self._changes[index, tick.evaluation] = changed if known is None else known + changed

    # -- driver of the wrapped model

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        values = self._values.get(self._branch, [()] * len(self._modes))
        self._sites = self._wrapping.of_member(member)
        for index, wrapped in enumerate(self._sites):
            mode = self._modes[index]
            wrapped.prepare(mode, values[index] if mode == REUSE else ())
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        if STORE in self._modes:
            kept = [wrapped.kept() for wrapped in self._sites]
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
