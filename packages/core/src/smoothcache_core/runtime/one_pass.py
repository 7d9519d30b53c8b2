"""Evaluations that have the conditional pass alone, and what sites kept of both passes for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from smoothcache_core.adapters.sites import Guidance
from smoothcache_core.errors import ScheduleError
from smoothcache_core.outputs.tensors import Output, blended, map_tensors
from smoothcache_core.wrapping.site_modules import CallOutputs

_BOTH = (0.5, 0.5)


@dataclass(frozen=True)
class OnePass:
    """How an evaluation is made whose unconditional pass is skipped.

    Attributes:
        order: Which half of a batch of both passes is conditional; None if passes are calls of
            their own.
        rows: Rows of such a batch; 0 if passes are calls of their own.
    """

    order: Guidance | None = None
    rows: int = 0

    def conditional(
        self, passes: Mapping[str, CallOutputs], branch: str, *, copied: bool
    ) -> CallOutputs:
        """Return what a site gave in the conditional pass of an evaluation with both.

        Args:
            passes: What it gave in the calls of that evaluation, by their branches.
            branch: The branch of the call under way.
            copied: Whether a half of a batch is copied, so that the batch can be dropped.

        Raises:
            ScheduleError: An output cannot be divided into the two passes.
        """
        if self.order is None:
            return passes[branch]
        given = tuple(self._halves(each)[0] for each in passes[branch])
        return tuple(map_tensors(Tensor.clone, each) for each in given) if copied else given

    def mean(self, passes: Mapping[str, CallOutputs]) -> CallOutputs:
        """Return the mean of what a site gave in the passes of an evaluation with all of them.

        Args:
            passes: What it gave in the calls of that evaluation, by their branches.

        Raises:
            ScheduleError: An output cannot be divided into the two passes.
        """
        calls = zip(*passes.values(), strict=True)
        if self.order is None:
            return tuple(blended(each, [1.0 / len(each)] * len(each)) for each in calls)
        return tuple(blended(self._halves(each), _BOTH) for (each,) in calls)

    def _halves(self, output: Output) -> Sequence[Output]:
        """Return (the conditional half, the unconditional half) of an output of both."""
        pair = [map_tensors(partial(self._half, second=second), output) for second in (False, True)]
        return pair if self.order == "cond-first" else pair[::-1]

    def _half(self, tensor: Tensor, *, second: bool) -> Tensor:
        if not tensor.dim() or len(tensor) % self.rows:  # a row may be several: one for each frame
            raise ScheduleError(
                f"a site gives a tensor of shape {tuple(tensor.shape)} for a batch of {self.rows} "
                "rows: its conditional half cannot be told, so it cannot fill an evaluation whose "
                "unconditional pass is skipped. Let the schedule compute it there, or both passes"
            )
        middle = len(tensor) // 2
        return tensor[middle:] if second else tensor[:middle]
