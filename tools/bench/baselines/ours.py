"""This library's policies: a schedule at work, schedules of given rows, and what `plan` makes."""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from smoothcache_core import Adapter, Calibration, Schedule, SmoothCacheWarning, attach, fit
from smoothcache_core.adapters import DENOISER
from smoothcache_core.fitting.fitter import Fitter
from smoothcache_core.planning import Planner
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.schedule import Fill
from smoothcache_core.schedule.provenance import Aim
from smoothcache_core.sources import smooth_to_compute

from tools.bench.policies import Attach, Attachable, Attached, Row, RowOf


def scheduled(schedule: Schedule, *, adapter: Adapter | None = None) -> Attach:
    """Return this library's cache by a schedule.

    Args:
        schedule: The schedule.
        adapter: Where the sites are, if not where the sampler says.
    """
    return by_schedule(lambda evaluations: schedule, adapter=adapter)


def by_schedule(
    schedule_of: Callable[[int], Schedule], *, adapter: Adapter | None = None
) -> Attach:
    """Return this library's cache by the schedule that is made for the sampler's evaluations."""

    @contextmanager
    def attached(sampler: Attachable) -> Generator[Attached]:
        schedule = schedule_of(sampler.steps)
        with warnings.catch_warnings(), sampler.around():
            warnings.simplefilter("ignore", SmoothCacheWarning)  # batch, noise, rows are as meant
            attachment = attach(
                sampler.model,
                adapter or sampler.adapter,
                schedule,
                branches=sampler.branches,
                scheduler=sampler.scheduler,
                solver=sampler.solver_name,
            )
            try:
                yield Attached(sampler=sampler, schedule=schedule, stats=attachment.stats)
            finally:
                attachment.detach(quietly=True)

    return attached


# ---------------------------------------------------------------------------- of given rows


def smoothcache(*kinds: str, row: RowOf) -> Attach:
    """Return this library's cache on sites of `kinds`, all by one row."""

    def schedule(evaluations: int) -> Schedule:
        rows: Any = dict.fromkeys(kinds, row(evaluations))
        return Schedule(evaluations=evaluations, rows=rows)

    return by_schedule(schedule)


def whole_evaluations(row: RowOf) -> Attach:
    """Return this library's cache of whole evaluations, each filled by two terms and the latent."""

    def schedule(evaluations: int) -> Schedule:
        return Schedule(
            evaluations=evaluations,
            rows={DENOISER.kind: row(evaluations)},
            fills={DENOISER.kind: _two_terms(row(evaluations))},
        )

    return by_schedule(schedule)


def _two_terms(row: Row) -> Fill:
    skipped = [i for i, computed in enumerate(row) if not computed and sum(row[:i]) > 1]
    return Fill(terms=dict.fromkeys(skipped, (1.5, -0.5)), inputs=dict.fromkeys(skipped, 0.01))


# ---------------------------------------------------------------------------- planned


@dataclass(frozen=True, kw_only=True)
class Material:
    """What schedules may be made from.

    Attributes:
        calibration: What was measured on the calibration samples.
        sampler: Samples them, all in one run, by a denoiser that nobody else uses.
        seeds: Seeds of their runs.
    """

    calibration: Calibration
    sampler: ConditionedSampler
    seeds: Sequence[int]

    @cached_property
    def toward_exact(self) -> Fitter:
        """Fits as `fit` toward the exact solutions, whose finer runs are made once for all fits."""
        return Fitter(self.sampler, self.seeds, toward="exact")


TRIALS = 24
"""Moves that `planned-refined` tries: most that are worth anything are among them, and each costs
as much as a fit."""


Plan = Callable[[Material, float], Schedule]
"""Returns a schedule for a compute budget in (0, 1); a `ScheduleError` says that it cannot."""


def our_policies() -> Mapping[str, Plan]:
    """Return this library's policies by their names in records.

    `planned` is what a user gets from `plan(calibration, compute=...)`, `planned-fitted` that after
    `fit`, and `planned-refined` after `fit` with `trials`; the others plan for one target each.
    `smoothcache-fitted` has the rows of SmoothCache and fills of two outputs that `fit` found.
    """
    sites: Plan = partial(_planned, "site")
    return {
        "planned": partial(_planned, "auto"),
        "planned-fitted": partial(_fitted, partial(_planned, "auto")),
        "planned-refined": partial(_refined, partial(_planned, "auto")),
        "planned-denoiser": partial(_planned, "denoiser"),
        "planned-guidance": partial(_planned, "guidance"),
        "planned-sites": sites,
        "planned-sites-fitted": partial(_fitted, sites),
        "smoothcache-fitted": partial(_fitted, _smooth, terms=2),
    }


def _planned(target: str, material: Material, budget: float) -> Schedule:
    return Planner(material.calibration, target=target).to_compute(budget)


def planned(material: Material, budget: float, *, toward: Aim) -> Schedule:
    """Return what a user gets from `plan`.

    Args:
        material: What it is made from; calibrated with the exact solution, if that is the aim.
        budget: Compute fraction, in (0, 1].
        toward: What samples shall come near to.
    """
    return Planner(material.calibration, toward=toward).to_compute(budget)


def fitted(material: Material, budget: float, *, toward: Aim) -> Schedule:
    """Return what `fit` makes of a plan with the same aim; see `planned`."""
    sampler = material.sampler
    with sampler.around():
        schedule = planned(material, budget, toward=toward)
        if toward == "exact":
            return material.toward_exact.fit(schedule)
        return fit(sampler, schedule, seeds=material.seeds, progress=False)


def _smooth(material: Material, budget: float) -> Schedule:
    return smooth_to_compute(material.calibration, compute=budget)


def _fitted(plan: Plan, material: Material, budget: float, *, terms: int | None = None) -> Schedule:
    sampler = material.sampler
    with sampler.around():
        schedule = plan(material, budget)
        return fit(sampler, schedule, seeds=material.seeds, terms=terms, progress=False)


def _refined(plan: Plan, material: Material, budget: float) -> Schedule:
    """Refine what was planned; schedules of sites cannot be, and are fitted."""
    sampler = material.sampler
    with sampler.around():
        schedule = plan(material, budget)
        trials = TRIALS if schedule.whole else 0
        return fit(sampler, schedule, seeds=material.seeds, trials=trials, progress=False)
