"""Applying a schedule to a live model."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import nn

from smoothcache_core.adapters.sites import Adapter, check_adapter
from smoothcache_core.arguments import check_kind, check_names
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.runtime.adapting import adapter_by
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.storage import Storage


@contextmanager
def cached(
    model: nn.Module,
    adapter: Adapter,
    schedule: Schedule,
    *,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
    differentiable: bool = False,
    storage: Storage | None = None,
) -> Generator[CacheStats]:
    """Run `model` by `schedule` inside a `with` block; the model is restored exactly at its end.

    There may be any number of runs in it; nothing is reused from one run in the next. One thread at
    a time may call the model.

    Example:
        >>> with cached(model, adapter, schedule) as stats:
        ...     latent = run(0)
        >>> stats.evaluations, stats.reuse_fraction > 0.0
        (8, True)

    Args:
        model: The denoiser the sampler calls. Compile it before, not inside.
        adapter: Where the sites of the model are, and how its calls are read.
        schedule: What to compute and what to fill. It must be for this model and adapter, and name
            none but the model's sites.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them by `cache_context`.
        scheduler: The pipeline's scheduler, if it has one. With it a new run is recognised for
            certain and a wrong number of steps is refused before anything is computed.
        solver: Name of the solver; taken from `scheduler` if not given.
        differentiable: Allow backpropagation through cached outputs, which keeps their autograd
            graph in memory. Otherwise filling an evaluation while gradients are enabled is refused.
        storage: How outputs are kept: on the CPU, or in fewer bits. As the schedule says if it is
            not given, which is as they were computed unless it was planned otherwise.

    Yields:
        Statistics, updated while the sampler runs.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or was changed so that it cannot be restored.
        ScheduleError: The schedule does not fit the model or the run.
    """
    attachment = attach(
        model,
        adapter,
        schedule,
        branches=branches,
        scheduler=scheduler,
        solver=solver,
        differentiable=differentiable,
        storage=storage,
    )
    try:
        yield attachment.stats
    except BaseException:
        attachment.detach(quietly=True)
        raise
    attachment.detach()


def attach(
    model: nn.Module,
    adapter: Adapter,
    schedule: Schedule,
    *,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
    differentiable: bool = False,
    storage: Storage | None = None,
) -> Attachment:
    """Attach the cache and keep it until `Attachment.detach()`, for servers; scripts use `cached`.

    Example:
        >>> attachment = attach(model, adapter, schedule)
        >>> latent = run(0)
        >>> attachment.stats.runs
        1
        >>> attachment.detach()

    Args:
        model: The denoiser the sampler calls. Compile it before, not afterwards.
        adapter: Where the sites of the model are, and how its calls are read.
        schedule: What to compute and what to fill; for this model and adapter.
        branches: Names of the conditioning passes, if guidance makes one call for each and the
            pipeline does not announce them by `cache_context`.
        scheduler: The pipeline's scheduler, if it has one; see `cached`.
        solver: Name of the solver; taken from `scheduler` if not given.
        differentiable: Allow backpropagation through cached outputs; see `cached`.
        storage: How outputs are kept, whatever schedules say; see `cached`.

    Returns:
        What detaches the cache, and counts what it does.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or was changed so that it cannot be restored.
        ScheduleError: The schedule does not fit the model.
    """
    check_kind(model, nn.Module, name="model", error=AttachError)
    check_adapter(adapter)
    check_kind(schedule, Schedule, name="schedule", error=ScheduleError)
    check_names(branches, name="branches", error=AttachError)
    if storage is not None:
        check_kind(storage, Storage, name="storage", error=AttachError)
    return Attachment(
        model,
        adapter_by(adapter, schedule),
        schedule,
        branches=tuple(branches),
        scheduler=scheduler,
        solver=solver,
        differentiable=differentiable,
        storage=storage,
    )
