"""This library's own policies in the quality benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from smoothcache_core import Calibration, Schedule, fit
from smoothcache_core.cli.sampler import Sampler, known
from smoothcache_core.planning import Planner
from smoothcache_core.sources import smooth_to_compute


@dataclass(frozen=True, kw_only=True)
class Material:
    """What schedules may be made from.

    Attributes:
        calibration: What was measured on the calibration samples.
        sampler: Samples them, all in one run, by a denoiser that nobody else uses.
        seeds: Seeds of their runs.
    """

    calibration: Calibration
    sampler: Sampler
    seeds: Sequence[int]


Plan = Callable[[Material, float], Schedule]
"""Returns a schedule for a compute budget in (0, 1); a `ScheduleError` says that it cannot."""


def our_policies() -> Mapping[str, Plan]:
    """Return this library's policies by their names in records.

    `planned` is what a user gets from `plan(calibration, compute=...)`, `planned-fitted` that after
    `fit`; the others plan for one target each. `smoothcache-fitted` has the rows of SmoothCache and
    fills of two outputs that `fit` found.
    """
    sites: Plan = partial(_planned, "site")
    return {
        "planned": partial(_planned, "auto"),
        "planned-fitted": partial(_fitted, partial(_planned, "auto")),
        "planned-denoiser": partial(_planned, "denoiser"),
        "planned-guidance": partial(_planned, "guidance"),
        "planned-sites": sites,
        "planned-sites-fitted": partial(_fitted, sites),
        "smoothcache-fitted": partial(_fitted, _smooth, terms=2),
    }


def _planned(target: str, material: Material, budget: float) -> Schedule:
    return Planner(material.calibration, target=target).to_compute(budget)


def _smooth(material: Material, budget: float) -> Schedule:
    return smooth_to_compute(material.calibration, compute=budget)


def _fitted(plan: Plan, material: Material, budget: float, *, terms: int | None = None) -> Schedule:
    sampler = material.sampler
    with sampler.around():
        schedule = plan(material, budget)
        return fit(known(sampler), schedule, seeds=material.seeds, terms=terms, progress=False)
