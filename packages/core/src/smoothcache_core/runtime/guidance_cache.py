"""Following the row of guidance: skipped unconditional passes.

Where the row is 0, the unconditional output is the conditional one minus a guidance difference
(conditional minus unconditional output) of earlier evaluations: only the conditional half of the
batch is computed, or the unconditional call is not made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from smoothcache_core.adapters.guidance import is_separate, is_unconditional
from smoothcache_core.adapters.sites import GUIDANCE, Adapter, Guidance
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
from smoothcache_core.outputs.structures import Structure, flatten
from smoothcache_core.outputs.tensors import nbytes
from smoothcache_core.runtime.guided_batch import GuidedBatch
from smoothcache_core.runtime.one_pass import OnePass
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.shelf import Shelf
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.timeline import FILL, FILLED, IDLE, REUSE, STORE, Timeline
from smoothcache_core.wrapping.denoiser import Step

_NOT_GUIDED = (
    "unconditional passes are computed although the schedule skips them: guidance is off in this "
    "run, or the two halves of its batch are not the same latents"
)


class _Action(Enum):
    """What is done with one call of the denoiser."""

    CALL = "make it"
    HALF = "make it for the conditional half of the batch"
    GUIDE = "answer it from the conditional pass of this evaluation"


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


class GuidanceCache:
    """Halves or answers the calls of unconditional passes, and keeps guidance differences.

    Args:
        recipe: What happens to the guidance difference.
        adapter: Says which half of a guided batch is conditional.
        branches: Names of the conditioning passes that are calls of their own.
        store: Where differences are kept between evaluations.
        stats: Where computed and filled passes are counted.
        remarks: Warns the user, each thing once.
        graph: Whether gradients flow through what is kept.
        shelf: Where differences are put away; None if they are kept as they are.

    Attributes:
        unguided: Whether the run said that guidance is off; batches are then of something else.
        one_pass: How the evaluation under way is made if its unconditional pass is skipped, None if
            it is not.
    """

    def __init__(
        self,
        recipe: Recipe,
        adapter: Adapter,
        branches: Sequence[str],
        store: TensorStore,
        stats: CacheStats,
        remarks: Remarks,
        *,
        graph: bool,
        shelf: Shelf | None,
    ) -> None:
        self._timeline = recipe.timeline
        self._adapter, self._branches = adapter, branches
        self._store, self._stats, self._remarks = store, stats, remarks
        self._graph, self._shelf = graph, shelf
        self._batch = GuidedBatch()
        self.unguided = False
        self.forget()

    def forget(self) -> None:
        """Forget the evaluation under way; for a run that begins or was cut off."""
        self.one_pass: OnePass | None = None
        self._action = _Action.CALL
        self._conditional: tuple[int, Structure] | None = None
        self._batch.restart()

    def see(self, tick: Tick, latent: Tensor | None) -> None:
        """Look at the latent of a call, (rows, ...), before it; None if that is impossible."""
        if tick.broken:
            self._batch.restart()
        self._batch.see(tick.evaluation, latent)

    def rescale(self, timeline: Timeline) -> None:
        """Fill differences by other coefficients; see `DenoiserCache.rescale`."""
        self._timeline = timeline

    def enter(self, tick: Tick, latent: Any) -> None:
        """A call comes; what is kept of another evaluation's conditional pass is dropped."""
        self._tick, self._latent, self._action, self.one_pass = tick, latent, _Action.CALL, None
        if self._conditional is not None and self._conditional[0] != tick.evaluation:
            self._conditional = None

    @property
    def answered(self) -> bool:
        """Whether the call under way was answered from the conditional pass."""
        return self._action is _Action.GUIDE

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Return what to do with a call.

        Raises:
            ScheduleError: The call is not as the schedule needs it.
        """
        if self._timeline.modes[self._tick.evaluation] not in FILLED:
            return Step(args, kwargs)
        order, branch = self._order(), self._tick.branch
        if order is None and not is_unconditional(branch):
            self.one_pass = OnePass()
            return Step(args, kwargs)
        guided = order is None or (not self.unguided and self._batch.is_guided())
        if not guided:
            self._remarks.once(_NOT_GUIDED)
        kept = self._store.stored(branch, GUIDANCE.kind)
        if not guided or not self._timeline.usable(self._tick.evaluation, kept):
            self._stats.recomputed += 1
            return Step(args, kwargs)
        if order is None:
            return self._answered(args, kwargs)
        halved = narrow(args, self._latent, order), narrow(kwargs, self._latent, order)
        self._action = _Action.HALF
        self.one_pass = OnePass(order, paired_rows(self._latent))
        return Step(*halved)

    def _answered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        """Return the answer of a call of its own, from the conditional one."""
        conditional = self._conditional_pass()
        unconditional, _ = self._unconditional(conditional)
        self._action = _Action.GUIDE
        return Step(args, kwargs, conditional.with_floating(unconditional).output())

    def _order(self) -> Guidance | None:
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

    def _unconditional(self, conditional: Structure) -> tuple[list[Tensor], TreeSpec]:
        """Return the filled floating tensors of the unconditional pass, and a batch's structure."""
        evaluation = self._tick.evaluation
        entries = self._store.stored(self._tick.branch, GUIDANCE.kind)
        sources = self._timeline.usable(evaluation, entries)
        kept: list[_StoredDifference] = [entries[source] for source in sources]
        tensors = [self._shelf.fetched(e.tensors) if self._shelf else e.tensors for e in kept]
        weights = self._timeline.weights[evaluation]
        return unguided(conditional.floating, tensors, weights), kept[0].spec

    def end(self, output: Any) -> Any:
        """Count the pass, keep its guidance difference, and widen what was made for a half.

        Raises:
            AttachError: The output holds no floating tensor.
            ScheduleError: The output or the order of the passes is not as the schedule needs it.
        """
        branch, evaluation = self._tick.branch, self._tick.evaluation
        if self._timeline.modes[evaluation] == IDLE:
            return output
        order, flat = self._order(), flatten(output)
        keep = self._timeline.modes[evaluation] in (STORE, REUSE, FILL)
        if order is None and not is_unconditional(branch):
            self._conditional = (evaluation, flat.copied(graph=self._graph)) if keep else None
            return output
        filled = self._action is not _Action.CALL
        self._stats.count(GUIDANCE.kind, filled=filled)
        if self._action is _Action.HALF and order is not None:
            output = widen(flat, *self._unconditional(flat), order)
        elif keep and not filled and (order is None or is_even(self._latent)):
            self._keep(flat, order)
        self._store.release(branch, GUIDANCE.kind, self._timeline, evaluation)
        return output

    def _keep(self, flat: Structure, order: Guidance | None) -> None:
        """Keep the guidance difference of an evaluation with both passes."""
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
        self._store.put(self._tick.branch, GUIDANCE.kind, self._tick.evaluation, made, size)
