"""Following rows of the whole model: skipped evaluations and skipped unconditional passes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.clock import Tick
from smoothcache_core.runtime.evaluation_cache import EvaluationCache
from smoothcache_core.runtime.guidance_cache import GuidanceCache
from smoothcache_core.runtime.one_pass import OnePass
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.shelf import Shelf
from smoothcache_core.runtime.store import CacheStats, TensorStore
from smoothcache_core.schedule.timeline import Timeline
from smoothcache_core.wrapping.denoiser import Step


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
        self._evaluations: EvaluationCache | None = None
        self._guidance: GuidanceCache | None = None
        if denoiser.fills or denoiser.corrects:
            self._evaluations = EvaluationCache(
                denoiser, store, stats, remarks, part=part, graph=graph, shelf=shelf
            )
        if guidance.fills:
            self._guidance = GuidanceCache(
                guidance, adapter, branches, store, stats, remarks, graph=graph, shelf=shelf
            )

    @property
    def one_pass(self) -> OnePass | None:
        """How the evaluation under way is made without its unconditional pass, None if with it."""
        return self._guidance.one_pass if self._guidance is not None else None

    def forget(self) -> None:
        """Forget the evaluation under way; for a run that begins or was cut off."""
        if self._guidance is not None:
            self._guidance.forget()

    def see(self, tick: Tick, latent: Tensor | None) -> None:
        """Look at the latent of a call, (rows, ...), before `begin`; None if that is impossible."""
        if self._guidance is not None:
            self._guidance.see(tick, latent)

    def told(self, *, unguided: bool) -> None:
        """The run said whether guidance is off; batches are then of something else."""
        if self._guidance is not None:
            self._guidance.unguided = unguided

    def rescale(self, guidance: Timeline) -> None:
        """Fill guidance differences by other coefficients, those of a run's own strength.

        Args:
            guidance: The timeline of the guidance difference, with the sources that it had.
        """
        if self._guidance is not None:
            self._guidance.rescale(guidance)

    def begin(self, tick: Tick, args: tuple[Any, ...], kwargs: dict[str, Any], latent: Any) -> Step:
        """Return what to do with a call.

        Raises:
            ScheduleError: The call is not as the schedule needs it.
        """
        self._tick, self._latent, self._skipped = tick, latent, False
        if self._guidance is not None:
            self._guidance.enter(tick, latent)
        if self._evaluations is not None and self._evaluations.skips(tick.evaluation):
            output = self._evaluations.filled(tick, latent)
            self._skipped = output is not None
            return Step(args, kwargs, output)
        if self._guidance is not None:
            return self._guidance.begin(args, kwargs)
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        """Keep what later evaluations need, count, and return what the caller gets.

        Raises:
            AttachError: The output holds no floating tensor.
            ScheduleError: The output or the order of the passes is not as the schedule needs it.
        """
        guided = self._guidance is not None and self._guidance.answered
        if self._guidance is not None:
            output = self._guidance.end(output)
        if self._evaluations is None:
            return output
        given = output
        if not self._skipped:
            given = self._evaluations.corrected(self._tick, self._latent, output)
            self._evaluations.keep(self._tick, self._latent, output)
        self._evaluations.close(self._tick, filled=None if guided else self._skipped)
        return given
