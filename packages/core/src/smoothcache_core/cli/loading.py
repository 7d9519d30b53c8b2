"""Loading a model with the steps that schedules are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from smoothcache_core import Sampler, Schedule
from smoothcache_core.adapters.levels import level_of
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines.adapting import AUTO, STRUCTURE
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.schedule import Fingerprint


def sampler_for(source: Source, plans: Mapping[Path, Schedule]) -> ConditionedSampler:
    """Load a model, with the steps that the schedules are for if none are given.

    Raises:
        CommandError: A schedule is for other steps.
        SmoothCacheError: The model cannot be loaded.
    """
    evaluations = [plan.evaluations for plan in plans.values()]
    own = source.steps_for(evaluations[0]) if evaluations else source.STEPS
    loaded = source.sampler(steps=source.steps or own)
    sampler = by_record(source, loaded, [plan.fingerprint for plan in plans.values()])
    for file, plan in plans.items():
        check_steps(source, sampler, plan.evaluations, file)
    return sampler


def by_record(
    source: Source, sampler: ConditionedSampler, known: Iterable[Fingerprint]
) -> ConditionedSampler:
    """Return a sampler with the adapter that files record, if none is asked for.

    Args:
        source: What was asked for.
        sampler: The sampler of the model.
        known: What the files were made for.
    """
    recorded = (each.recorded_adapter for each in known)
    parts = (each for each in recorded if each is not None and level_of(each.name) == "parts")
    found = next(parts, None)
    if found is None or source.adapter not in (AUTO, STRUCTURE):
        return sampler
    return sampler.with_adapter(found)


def check_steps(source: Source, sampler: ConditionedSampler, evaluations: int, file: Path) -> None:
    """Refuse a number of steps that is known not to make the evaluations that a file is for.

    Raises:
        CommandError: It is.
    """
    made = sampler.evaluations
    if made is None or made == evaluations:
        return
    scheduler = sampler.scheduler
    solver = sampler.solver if scheduler is None else type(scheduler).__name__
    raise CommandError(
        f"{str(file)!r} is for {evaluations} evaluations, but {solver} makes {made} in "
        f"{sampler.steps} steps; set the steps to {source.steps_for(evaluations)}"
    )


def with_passes(sampler: ConditionedSampler, known: Fingerprint) -> Sampler:
    """Return a sampler that names conditioning passes: its own, or those that a file is of."""
    if sampler.branches or not known.branches:
        return sampler
    return replace(sampler.plain_sampler(), branches=known.branches)
