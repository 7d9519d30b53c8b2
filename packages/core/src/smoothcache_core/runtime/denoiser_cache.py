"""Following rows of the whole model: answering calls of the denoiser, and halving its guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from smoothcache_core.adapters.guidance import is_unconditional
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Guidance
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.halves import difference, halves, narrow, paired_rows, unguided, widen
from smoothcache_core.outputs.structures import Structure, answer, flatten
from smoothcache_core.outputs.tensors import nbytes
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.timeline import FILL, FILLED, IDLE, REUSE, STORE, Timeline
from smoothcache_core.wrapping.denoiser import Step


class _Act(Enum):
    """What is done with a call of the denoiser."""

    CALL = "make it"
    HALF = "make it for the conditional half of the batch"
    SKIP = "answer it from earlier evaluations"
    GUIDE = "answer it from the conditional pass of this evaluation"


@dataclass(frozen=True)
class _Stored:
    """The output of an evaluation, and the latent that it was given if that is needed."""

    output: Structure
    latent: Any


@dataclass(frozen=True)
class _Difference:
    """A guidance difference, and the structure of the output that it was taken from."""

    tensors: list[Tensor]
    spec: TreeSpec


def refuse_guidance(
    guidance: Recipe, adapter: Adapter, model: nn.Module, branches: Sequence[str]
) -> None:
    """Raise `ScheduleError` if the unconditional pass is to be skipped and cannot be told."""
    if not guidance.fills:
        return
    announced = callable(getattr(model, "cache_context", None))
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
    """Leads the denoiser through a run by the rows of the whole model.

    Args:
        denoiser: What happens to the denoiser's output.
        guidance: What happens to the guidance difference.
        adapter: Says how guidance is batched.
        branches: Names of the conditioning passes that are calls of their own.
        store: Where outputs are kept.
        stats: Where it is counted.
    """

    def __init__(
        self,
        denoiser: Recipe,
        guidance: Recipe,
        adapter: Adapter,
        branches: Sequence[str],
        store: TensorStore,
        stats: CacheStats,
    ) -> None:
        self._recipe = denoiser
        self._denoiser = denoiser.timeline if denoiser.fills else None
        self._guidance = guidance.timeline if guidance.fills else None
        self._adapter = adapter
        self._separate = bool(branches)
        self._store, self._stats = store, stats
        self.forget()

    def forget(self) -> None:
        """A run begins, or was cut off."""
        self._conditional: tuple[int, Structure] | None = None

    # ------------------------------------------------------------------ before a call

    def begin(self, tick: Tick, args: tuple[Any, ...], kwargs: dict[str, Any], latent: Any) -> Step:
        """Return what to do with a call.

        Raises:
            ScheduleError: The call is not as the schedule needs it.
        """
        self._tick, self._latent, self._act = tick, latent, _Act.CALL
        if self._conditional is not None and self._conditional[0] != tick.evaluation:
            self._conditional = None
        denoiser, guidance = self._denoiser, self._guidance
        if denoiser is not None and denoiser.modes[tick.evaluation] in FILLED:
            output = self._skipped(denoiser)
            if output is not None:
                self._act = _Act.SKIP
                return Step(args, kwargs, output)
        elif guidance is not None and guidance.modes[tick.evaluation] in FILLED:
            return self._guided(guidance, args, kwargs)
        return Step(args, kwargs)

    def _skipped(self, timeline: Timeline) -> Any:
        """Return the output of a skipped evaluation, None if it must be computed."""
        evaluation = self._tick.evaluation
        own, anchor = self._recipe.latents[evaluation]
        entries = self._store.stored(self._tick.branch, DENOISER.kind)
        sources = timeline.usable(evaluation, entries)
        if not sources or ((own or anchor) and sources != timeline.sources[evaluation]):
            self._stats.recomputed += 1
            return None
        kept: list[_Stored] = [entries[source] for source in sources]
        latents = [(self._latent, own), (kept[0].latent, anchor)]
        return answer(
            [each.output for each in kept],
            timeline.weights[evaluation],
            [(latent, coefficient) for latent, coefficient in latents if coefficient],
        )

    def _guided(self, timeline: Timeline, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        order, branch = self._order(), self._tick.branch
        if order is None and not is_unconditional(branch):
            return Step(args, kwargs)
        if not timeline.usable(self._tick.evaluation, self._store.stored(branch, GUIDANCE.kind)):
            self._stats.recomputed += 1
            return Step(args, kwargs)
        if order is not None:
            halved = narrow(args, self._latent, order), narrow(kwargs, self._latent, order)
            self._act = _Act.HALF
            return Step(*halved)
        conditional = self._conditional_pass()
        unconditional, _ = self._unconditional(timeline, conditional)
        self._act = _Act.GUIDE
        return Step(args, kwargs, conditional.with_floating(unconditional).output())

    def _order(self) -> Guidance | None:
        """Return which half of this batch is conditional, None if passes are calls of their own."""
        branch = self._tick.branch
        joint = is_unconditional(branch) and "cond" in branch.replace("uncond", "")
        if self._separate or (branch and not joint):
            return None
        order = self._adapter.guidance
        if order is None:
            raise ScheduleError(
                f"the schedule skips unconditional passes, but adapter {self._adapter.name!r} does "
                "not say which half of a batch is conditional, and this call is of no named branch"
            )
        return order

    def _conditional_pass(self) -> Structure:
        if self._conditional is None:
            raise ScheduleError(
                f"evaluation {self._tick.evaluation}: the pass {self._tick.branch!r} came before "
                "the conditional one; the unconditional pass can be skipped only after it"
            )
        return self._conditional[1]

    def _unconditional(
        self, timeline: Timeline, conditional: Structure
    ) -> tuple[list[Tensor], TreeSpec]:
        """Return the floating tensors of the unconditional pass, and the structure of a batch."""
        evaluation = self._tick.evaluation
        entries = self._store.stored(self._tick.branch, GUIDANCE.kind)
        kept: list[_Difference] = [entries[s] for s in timeline.usable(evaluation, entries)]
        tensors = [each.tensors for each in kept]
        return unguided(conditional.floating, tensors, timeline.weights[evaluation]), kept[0].spec

    # ------------------------------------------------------------------ after a call

    def end(self, output: Any) -> Any:
        """Take what is needed later, count, and return what the caller gets.

        Raises:
            AttachError: The output holds no floating tensor.
            ScheduleError: The output or the order of the passes is not as the schedule needs it.
        """
        evaluation = self._tick.evaluation
        if self._guidance is not None and self._guidance.modes[evaluation] != IDLE:
            output = self._end_guidance(self._guidance, output)
        if self._denoiser is not None:
            self._end_denoiser(self._denoiser, output)
        return output

    def _end_denoiser(self, timeline: Timeline, output: Any) -> None:
        branch, evaluation = self._tick.branch, self._tick.evaluation
        skipped = self._act is _Act.SKIP
        if self._act is not _Act.GUIDE:
            self._stats.count(DENOISER.kind, filled=skipped)
        if not skipped and timeline.modes[evaluation] in (STORE, REUSE, FILL):
            latent = flatten(self._latent).copied() if self._recipe.keeps_latent else None
            kept = _Stored(flatten(output).copied(), latent and latent.output())
            size = kept.output.bytes + (latent.bytes if latent else 0)
            self._store.put(branch, DENOISER.kind, evaluation, kept, size)
        self._store.release(branch, DENOISER.kind, timeline, evaluation)

    def _end_guidance(self, timeline: Timeline, output: Any) -> Any:
        order, flat = self._order(), flatten(output)
        branch, evaluation = self._tick.branch, self._tick.evaluation
        keep = timeline.modes[evaluation] in (STORE, REUSE, FILL)
        if order is None and not is_unconditional(branch):
            self._conditional = (evaluation, flat.copied()) if keep else None
            return output
        filled = self._act in (_Act.HALF, _Act.GUIDE)
        self._stats.count(GUIDANCE.kind, filled=filled)
        if self._act is _Act.HALF and order is not None:
            output = widen(flat, *self._unconditional(timeline, flat), order)
        elif keep and not filled:
            passes = (
                (self._conditional_pass().floating, flat.floating)
                if order is None
                else halves(flat, paired_rows(self._latent), order)
            )
            made = _Difference(difference(*passes), flat.spec)
            self._store.put(branch, GUIDANCE.kind, evaluation, made, sum(map(nbytes, made.tensors)))
        self._store.release(branch, GUIDANCE.kind, timeline, evaluation)
        return output
