"""What a command needs of a modality to sample."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import smoothcache_core as core

if TYPE_CHECKING:
    from torch import Tensor, nn

    from smoothcache_core import Adapter
    from smoothcache_core.calls.clock import Scheduler


class Sampler(Protocol):
    """Samples one batch per seed. A frozen dataclass, so that copies can be changed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Steps of the solver."""
        ...

    @property
    def batch(self) -> int:
        """Samples of one call."""
        ...

    @property
    def denoiser(self) -> nn.Module:
        """The module that the solver calls."""
        ...

    @property
    def adapter(self) -> Adapter:
        """Where its sites are."""
        ...

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler, if there is one; see `smoothcache_core.cached`."""
        ...

    @property
    def solver_name(self) -> str | None:
        """Name of the solver, if there is no scheduler to name it."""
        ...

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the conditioning passes; see `smoothcache_core.cached`."""
        ...

    @property
    def evaluations(self) -> int | None:
        """Evaluations of one run, if that is known before."""
        ...

    def __call__(self, seed: int) -> Tensor:
        """Return what the solver ends with for `seed`, (batch, ...), float32."""
        ...

    def conditions_of(self, seed: int) -> Sequence[Any]:
        """Return what the samples of `seed` are asked to show."""
        ...

    def label(self, condition: Any) -> str:
        """Return the name of a condition, short enough for a caption or a file name."""
        ...

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser."""
        ...

    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none."""
        ...


def known(sampler: Sampler, branches: Sequence[str] | None = None) -> core.Sampler:
    """Return what core takes of a modality's sampler.

    Args:
        sampler: The modality's.
        branches: Names of the conditioning passes, if the sampler has none of its own.
    """
    return core.Sampler(
        model=sampler.denoiser,
        adapter=sampler.adapter,
        run=sampler,
        scheduler=sampler.scheduler,
        solver=sampler.solver_name,
        branches=sampler.branches or tuple(branches or ()),
        samples=sampler.batch,
        around=sampler.around,
    )
