"""Following the row of the denoiser: skipped evaluations, and corrections of computed ones.

Where the row is 0 a call is not made, and its output is combined from those of earlier evaluations.
Where a computed output is corrected, the solver gets such a combination, and the output is kept.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.sites import DENOISER
from smoothcache_core.calls.clock import Tick
from smoothcache_core.outputs.parked import parked_leaves
from smoothcache_core.outputs.structures import Structure, answer, flatten, like_output
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.shelf import Shelf
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.timeline import FILL, FILLED, REUSE, STORE


@dataclass(frozen=True)
class _StoredOutput:
    """What is kept of a computed evaluation.

    Attributes:
        output: A copy of the denoiser's output.
        latent: A copy of the latent that it was given, as far as the output is of it; None if no
            fill needs it.
    """

    output: Structure
    latent: Any


class EvaluationCache:
    """Answers skipped evaluations, corrects computed ones, and keeps what both need.

    Args:
        recipe: What happens to the denoiser's output.
        store: Where outputs are kept between evaluations.
        stats: Where computed, filled and corrected evaluations are counted.
        remarks: Warns the user, each thing once.
        part: What of the latent is denoised; None for all of it.
        graph: Whether gradients flow through what is kept.
        shelf: Where outputs are put away; None if they are kept as they are.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: TensorStore,
        stats: CacheStats,
        remarks: Remarks,
        *,
        part: LatentPart | None,
        graph: bool,
        shelf: Shelf | None,
    ) -> None:
        self._recipe, self._timeline = recipe, recipe.timeline
        self._store, self._stats, self._remarks = store, stats, remarks
        self._part, self._graph, self._shelf = part, graph, shelf

    def skips(self, evaluation: int) -> bool:
        """Return whether the schedule skips an evaluation."""
        return self._timeline.modes[evaluation] in FILLED

    def filled(self, tick: Tick, latent: Any) -> Any:
        """Return the output of a skipped evaluation, None if it must be computed.

        Args:
            tick: The call of the denoiser.
            latent: The latent that it is given.
        """
        evaluation = tick.evaluation
        own, anchor = self._recipe.latents[evaluation]
        entries = self._store.stored(tick.branch, DENOISER.kind)
        sources = self._timeline.usable(evaluation, entries)
        if not sources or ((own or anchor) and sources != self._timeline.sources[evaluation]):
            self._stats.recomputed += 1
            return None
        kept = [self._back(entries[source]) for source in sources]
        present = like_output(latent, kept[0].output, self._part) if own else None
        latents = [(present, own), (kept[0].latent, anchor)]
        return answer(
            [each.output for each in kept],
            self._timeline.weights[evaluation],
            [(latent, coefficient) for latent, coefficient in latents if coefficient],
        )

    def corrected(self, tick: Tick, latent: Any, output: Any) -> Any:
        """Return what the solver gets in place of a computed output; others as they are.

        Args:
            tick: The call of the denoiser.
            latent: The latent that it was given.
            output: What it computed.
        """
        evaluation = tick.evaluation
        weights = self._timeline.corrections.get(evaluation)
        if weights is None:
            return output
        entries = self._store.stored(tick.branch, DENOISER.kind)
        earlier = self._timeline.earlier[evaluation]
        if not set(earlier) <= set(entries):
            self._remarks.once(
                f"the output of evaluation {evaluation} is not corrected: outputs before it are "
                "not kept, because the run was broken off or another pass came in between"
            )
            return output
        self._stats.corrected += 1
        kept = [self._back(entries[each]).output for each in earlier]
        made, coefficient = flatten(output), self._recipe.inputs.get(evaluation, 0.0)
        own = like_output(latent, made, self._part) if coefficient else None
        return answer([made, *kept], weights, [(own, coefficient)] if coefficient else ())

    def keep(self, tick: Tick, latent: Any, output: Any) -> None:
        """Keep a computed output, if later evaluations are filled or corrected from it.

        Args:
            tick: The call of the denoiser.
            latent: The latent that it was given.
            output: What it computed, before its correction.
        """
        if self._timeline.modes[tick.evaluation] not in (STORE, REUSE, FILL):
            return
        copies = partial(Structure.copied, graph=self._graph)
        made, own = copies(flatten(output)), None
        if self._recipe.keeps_latent:
            own = copies(flatten(like_output(latent, made, self._part)))
        kept = _StoredOutput(made, own and own.output())
        size = kept.output.bytes + (own.bytes if own else 0)
        if self._shelf is not None:
            kept = self._away(kept, self._shelf)
            size = sum(p.bytes for p in parked_leaves((kept.output.leaves, kept.latent)))
        self._store.put(tick.branch, DENOISER.kind, tick.evaluation, kept, size)

    def close(self, tick: Tick, *, filled: bool | None) -> None:
        """Count a call, and drop what no later evaluation needs.

        Args:
            tick: The call of the denoiser.
            filled: Whether its output was filled; None if it counts as neither.
        """
        if self._recipe.fills and filled is not None:
            self._stats.count(DENOISER.kind, filled=filled)
        self._store.release(tick.branch, DENOISER.kind, self._timeline, tick.evaluation)

    @staticmethod
    def _away(kept: _StoredOutput, shelf: Shelf) -> _StoredOutput:
        """Return an output that is put away, with its latent."""
        output = Structure(shelf.parked(kept.output.leaves), kept.output.spec)
        return _StoredOutput(output, shelf.parked(kept.latent))

    def _back(self, kept: _StoredOutput) -> _StoredOutput:
        """Return an output that was kept, brought back if it was put away."""
        if self._shelf is None:
            return kept
        output = Structure(self._shelf.fetched(kept.output.leaves), kept.output.spec)
        return _StoredOutput(output, self._shelf.fetched(kept.latent))
