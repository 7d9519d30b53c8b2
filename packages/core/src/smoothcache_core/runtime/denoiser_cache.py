"""Following rows of the whole model: skipped evaluations and skipped unconditional passes.

Where the row of the denoiser is 0, a call is not made and its output is combined from those of
earlier evaluations. Where the row of guidance is 0, the unconditional output is the conditional one
minus a guidance difference (conditional minus unconditional output) of earlier evaluations: only
the conditional half of the batch is computed, or the unconditional call is not made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from smoothcache_core.adapters.guidance import is_separate, is_unconditional
from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Guidance
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.halves import (
    difference,
    halves,
    is_even,
    narrow,
    paired_rows,
    unguided,
    widen,
)
from smoothcache_core.outputs.parked import parked_leaves
from smoothcache_core.outputs.structures import Structure, answer, flatten, like_output
from smoothcache_core.outputs.tensors import nbytes
from smoothcache_core.runtime.guided_batch import GuidedBatch
from smoothcache_core.runtime.one_pass import OnePass
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.shelf import Shelf
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.timeline import FILL, FILLED, IDLE, REUSE, STORE, Timeline
from smoothcache_core.wrapping.denoiser import Step


class _Action(Enum):
    """What is done with one call of the denoiser."""

    CALL = "make it"
    HALF = "make it for the conditional half of the batch"
    SKIP = "answer it from earlier evaluations"
    GUIDE = "answer it from the conditional pass of this evaluation"


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


@dataclass(frozen=True)
class _StoredDifference:
    """A guidance difference that is kept.

    Attributes:
        tensors: Conditional minus unconditional output, for each floating tensor of an output.
        spec: Structure of an output for the whole batch.
    """

    tensors: list[Tensor]
    spec: TreeSpec


def refuse_guidance(
    guidance: Recipe, adapter: Adapter, models: Sequence[nn.Module], branches: Sequence[str]
) -> None:
    """Refuse to skip unconditional passes where they cannot be told from conditional ones.

    Args:
        guidance: What happens to the guidance difference.
        adapter: Says which half of a batch is conditional.
        models: The denoisers that take turns, or the only one; if they have `cache_context`,
            pipelines name their passes.
        branches: Names of the passes that are calls of their own, in their order.

    Raises:
        ScheduleError: They cannot be told apart.
    """
    if not guidance.fills:
        return
    announced = all(callable(getattr(model, "cache_context", None)) for model in models)
    if adapter.guidance is None and not branches and not announced:
        raise ScheduleError(
            f"the schedule skips unconditional passes, but adapter {adapter.name!r} does not say "
            "which half of a batch is conditional, and no branches are named"
        )
    if branches and [is_unconditional(branch) for branch in branches].count(False) != 1:
        raise ScheduleError(
            "the schedule skips unconditional passes, so one branch must be the conditional one "
            f"and all others have 'uncond' or 'neg' in their names, got {tuple(branches)}"
        )


class DenoiserCache:
    """Makes, halves or answers the calls of a denoiser by the rows of the whole model.

    Args:
        denoiser: What happens to the denoiser's output.
        guidance: What happens to the guidance difference.
        adapter: Says which half of a guided batch is conditional.
        branches: Names of the conditioning passes that are calls of their own.
        store: Where outputs and differences are kept between evaluations.
        stats: Where computed and filled evaluations are counted.
        remarks: Warns the user, each thing once.
        part: What of the latent is denoised; None for all of it.
        graph: Whether gradients flow through what is kept.
        shelf: Where outputs are put away; None if they are kept as they are.

    Attributes:
        unguided: Whether the run said that guidance is off; batches are then of something else.
        one_pass: How the evaluation under way is made if its unconditional pass is skipped, None if
            it is not.
    """

    def __init__(
        self,
        denoiser: Recipe,
        guidance: Recipe,
        adapter: Adapter,
        branches: Sequence[str],
        store: TensorStore,
        stats: CacheStats,
        remarks: Remarks,
        *,
        part: LatentPart | None = None,
        graph: bool = False,
        shelf: Shelf | None = None,
    ) -> None:
        self._recipe = denoiser
        self._denoiser = denoiser.timeline if denoiser.fills or denoiser.corrects else None
        self._guidance = guidance.timeline if guidance.fills else None
        self._adapter, self._branches, self._part = adapter, branches, part
        self._store, self._stats, self._remarks, self._graph = store, stats, remarks, graph
        self._shelf = shelf
        self._batch = GuidedBatch()
        self.unguided = False
        self.one_pass: OnePass | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the evaluation under way; for a run that begins or was cut off."""
        self._conditional: tuple[int, Structure] | None = None
        self._batch.restart()

    def see(self, tick: Tick, latent: Tensor | None) -> None:
        """Look at the latent of a call, (rows, ...), before `begin`; None if that is impossible."""
        if self._guidance is None:
            return
        if tick.broken:
            self._batch.restart()
        self._batch.see(tick.evaluation, latent)

    def rescale(self, guidance: Timeline) -> None:
        """Fill guidance differences by other coefficients, those of a run's own strength.

        Args:
            guidance: The timeline of the guidance difference, with the sources that it had.
        """
        if self._guidance is not None:
            self._guidance = guidance

    # ------------------------------------------------------------------ before a call

    def begin(self, tick: Tick, args: tuple[Any, ...], kwargs: dict[str, Any], latent: Any) -> Step:
        """Return what to do with a call.

        Raises:
            ScheduleError: The call is not as the schedule needs it.
        """
        self._tick, self._latent, self._action = tick, latent, _Action.CALL
        self.one_pass = None
        if self._conditional is not None and self._conditional[0] != tick.evaluation:
            self._conditional = None
        denoiser, guidance = self._denoiser, self._guidance
        if denoiser is not None and denoiser.modes[tick.evaluation] in FILLED:
            output = self._filled_output(denoiser)
            if output is not None:
                self._action = _Action.SKIP
                return Step(args, kwargs, output)
        elif guidance is not None and guidance.modes[tick.evaluation] in FILLED:
            return self._without_unconditional(guidance, args, kwargs)
        return Step(args, kwargs)

    def _filled_output(self, timeline: Timeline) -> Any:
        """Return the output of a skipped evaluation, None if it must be computed."""
        evaluation = self._tick.evaluation
        own, anchor = self._recipe.latents[evaluation]
        entries = self._store.stored(self._tick.branch, DENOISER.kind)
        sources = timeline.usable(evaluation, entries)
        if not sources or ((own or anchor) and sources != timeline.sources[evaluation]):
            self._stats.recomputed += 1
            return None
        kept = [self._back(entries[source]) for source in sources]
        present = like_output(self._latent, kept[0].output, self._part) if own else None
        latents = [(present, own), (kept[0].latent, anchor)]
        return answer(
            [each.output for each in kept],
            timeline.weights[evaluation],
            [(latent, coefficient) for latent, coefficient in latents if coefficient],
        )

    def _without_unconditional(
        self, timeline: Timeline, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Step:
        """Return how a call is made without its unconditional pass."""
        order, branch = self._batch_order(), self._tick.branch
        if order is None and not is_unconditional(branch):
            self.one_pass = OnePass()
            return Step(args, kwargs)
        guided = order is None or (not self.unguided and self._batch.is_guided())
        if not guided:
            self._remarks.once(
                "unconditional passes are computed although the schedule skips them: guidance is "
                "off in this run, or the two halves of its batch are not the same latents"
            )
        kept = self._store.stored(branch, GUIDANCE.kind)
        if not guided or not timeline.usable(self._tick.evaluation, kept):
            self._stats.recomputed += 1
            return Step(args, kwargs)
        if order is not None:
            halved = narrow(args, self._latent, order), narrow(kwargs, self._latent, order)
            self._action = _Action.HALF
            self.one_pass = OnePass(order, paired_rows(self._latent))
            return Step(*halved)
        conditional = self._conditional_pass()
        unconditional, _ = self._unconditional(timeline, conditional)
        self._action = _Action.GUIDE
        return Step(args, kwargs, conditional.with_floating(unconditional).output())

    def _batch_order(self) -> Guidance | None:
        """Return which half of this batch is conditional, None if passes are calls of their own."""
        if is_separate(self._tick.branch, self._branches):
            return None
        order = self._adapter.guidance
        if order is None:
            raise ScheduleError(
                f"the schedule skips unconditional passes, but adapter {self._adapter.name!r} does "
                "not say which half of a batch is conditional, and this call is of no named branch"
            )
        return order

    def _conditional_pass(self) -> Structure:
        """Return the output of the conditional call of this evaluation."""
        if self._conditional is None:
            raise ScheduleError(
                f"evaluation {self._tick.evaluation}: the pass {self._tick.branch!r} came before "
                "the conditional one; the unconditional pass can be skipped only after it"
            )
        return self._conditional[1]

    def _unconditional(
        self, timeline: Timeline, conditional: Structure
    ) -> tuple[list[Tensor], TreeSpec]:
        """Return the filled floating tensors of the unconditional pass, and a batch's structure."""
        evaluation = self._tick.evaluation
        entries = self._store.stored(self._tick.branch, GUIDANCE.kind)
        kept: list[_StoredDifference] = [entries[s] for s in timeline.usable(evaluation, entries)]
        tensors = [self._shelf.fetched(e.tensors) if self._shelf else e.tensors for e in kept]
        return unguided(conditional.floating, tensors, timeline.weights[evaluation]), kept[0].spec

    # ------------------------------------------------------------------ after a call

    def end(self, output: Any) -> Any:
        """Keep what later evaluations need, count, and return what the caller gets.

        Raises:
            AttachError: The output holds no floating tensor.
            ScheduleError: The output or the order of the passes is not as the schedule needs it.
        """
        evaluation = self._tick.evaluation
        if self._guidance is not None and self._guidance.modes[evaluation] != IDLE:
            output = self._end_guidance(self._guidance, output)
        if self._denoiser is None:
            return output
        corrected = self._corrected(self._denoiser, output)
        self._end_denoiser(self._denoiser, output)
        return corrected

    def _corrected(self, timeline: Timeline, output: Any) -> Any:
        """Return what the solver gets in place of a computed output; others as they are."""
        branch, evaluation = self._tick.branch, self._tick.evaluation
        weights = timeline.corrections.get(evaluation)
        if weights is None or self._action is _Action.SKIP:
            return output
        entries = self._store.stored(branch, DENOISER.kind)
        earlier = timeline.earlier[evaluation]
        if not set(earlier) <= set(entries):
            self._remarks.once(
                f"the output of evaluation {evaluation} is not corrected: outputs before it are "
                "not kept, because the run was broken off or another pass came in between"
            )
            return output
        self._stats.corrected += 1
        kept = [self._back(entries[each]).output for each in earlier]
        made, coefficient = flatten(output), self._recipe.inputs.get(evaluation, 0.0)
        latent = like_output(self._latent, made, self._part) if coefficient else None
        return answer([made, *kept], weights, [(latent, coefficient)] if coefficient else ())

    def _end_denoiser(self, timeline: Timeline, output: Any) -> None:
        """Count the evaluation; keep its output while later evaluations are filled from it."""
        branch, evaluation = self._tick.branch, self._tick.evaluation
        skipped = self._action is _Action.SKIP
        if self._recipe.fills and self._action is not _Action.GUIDE:
            self._stats.count(DENOISER.kind, filled=skipped)
        if not skipped and timeline.modes[evaluation] in (STORE, REUSE, FILL):
            copies = partial(Structure.copied, graph=self._graph)
            made, latent = copies(flatten(output)), None
            if self._recipe.keeps_latent:
                latent = copies(flatten(like_output(self._latent, made, self._part)))
            kept = _StoredOutput(made, latent and latent.output())
            size = kept.output.bytes + (latent.bytes if latent else 0)
            if self._shelf is not None:
                kept = self._away(kept, self._shelf)
                size = sum(p.bytes for p in parked_leaves((kept.output.leaves, kept.latent)))
            self._store.put(branch, DENOISER.kind, evaluation, kept, size)
        self._store.release(branch, DENOISER.kind, timeline, evaluation)

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

    def _end_guidance(self, timeline: Timeline, output: Any) -> Any:
        """Count the pass, keep its guidance difference, and widen what was made for a half."""
        order, flat = self._batch_order(), flatten(output)
        branch, evaluation = self._tick.branch, self._tick.evaluation
        keep = timeline.modes[evaluation] in (STORE, REUSE, FILL)
        if order is None and not is_unconditional(branch):
            self._conditional = (evaluation, flat.copied(graph=self._graph)) if keep else None
            return output
        filled = self._action in (_Action.HALF, _Action.GUIDE)
        self._stats.count(GUIDANCE.kind, filled=filled)
        if self._action is _Action.HALF and order is not None:
            output = widen(flat, *self._unconditional(timeline, flat), order)
        elif keep and not filled and (order is None or is_even(self._latent)):
            passes = (
                (self._conditional_pass().floating, flat.floating)
                if order is None
                else halves(flat, paired_rows(self._latent), order)
            )
            tensors: Any = difference(*passes, graph=self._graph)
            size = sum(map(nbytes, tensors))
            if self._shelf is not None:
                tensors = self._shelf.parked(tensors)
                size = sum(each.bytes for each in parked_leaves(tensors))
            made = _StoredDifference(tensors, flat.spec)
            self._store.put(branch, GUIDANCE.kind, evaluation, made, size)
        self._store.release(branch, GUIDANCE.kind, timeline, evaluation)
        return output
