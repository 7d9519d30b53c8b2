"""Applying a schedule to a live model."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Site, check_adapter
from smoothcache_core.arguments import check_kind, check_names
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.calls.solvers import solver_name, solver_settings
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.runtime.attachment import Attachment, warn
from smoothcache_core.runtime.recipe import compile_schedule
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule


@contextmanager
def cached(
    model: nn.Module,
    adapter: Adapter,
    schedule: Schedule,
    *,
    branches: Sequence[str] = (),
    scheduler: Scheduler | None = None,
    solver: str | None = None,
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

    Yields:
        Statistics, updated while the sampler runs.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or was changed so that it cannot be restored.
        ScheduleError: The schedule does not fit the model or the run.
    """
    attachment = attach(
        model, adapter, schedule, branches=branches, scheduler=scheduler, solver=solver
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
) -> Attachment:
    """Put the cache on and leave it on until `Attachment.detach`, for servers; else take `cached`.

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
    inside = denoiser(model)
    sites = tuple(adapter.sites(inside))
    settings = solver_settings(scheduler) if scheduler is not None else None
    solver = solver or (solver_name(scheduler) if scheduler is not None else None)
    live = model_fingerprint(inside, adapter.name)
    live = live.changed(solver=solver, solver_settings=settings, branches=tuple(branches))
    _check(schedule, sites, live)
    recipes = compile_schedule(schedule, (*sites, DENOISER, GUIDANCE))
    return Attachment(model, adapter, schedule, recipes, tuple(branches), scheduler)


def _check(schedule: Schedule, sites: Sequence[Site], live: Fingerprint) -> None:
    """Refuse a schedule that does not fit; warn of what is harmless."""
    reasons = schedule.fingerprint.conflicts(live)
    if reasons:
        raise ScheduleError(f"this schedule is for another model: {'; '.join(reasons)}")
    unknown = schedule.unknown_keys(sites)
    if unknown:
        kinds = sorted({site.kind for site in sites})
        raise ScheduleError(
            f"the schedule names {unknown[:5]}, which {live.model_class} does not have; with "
            f"adapter {live.adapter!r} its kinds are {kinds}, its first site {sites[0].path!r}"
        )
    for remark in schedule.fingerprint.remarks(live):
        warn(f"the schedule was planned for something else: {remark}")
    if not schedule.skips:
        warn("the schedule computes everything: nothing will be reused and nothing gets faster")
