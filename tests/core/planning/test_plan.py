"""The dial: a compute fraction, a speed-up or an error, and the best schedule for it."""

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from kit.helpers import with_samples
from kit.planning import Mixture, OneStep, Passes, ToySampler
from smoothcache_core import Calibration, Schedule, SmoothCacheWarning, calibrate, plan
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, linear, reuse, taylor
from smoothcache_core.planning import Limits, Planner, Point, auto
from smoothcache_core.sources import SOURCES, plan_evaluations, plan_sites, smooth_to_compute
from smoothcache_core.sources.interval import interval_of

STEPS = 10
TARGETS = tuple(kind.name for kind in SOURCES if kind.name not in ("block", "span"))
ALL = ("auto", *TARGETS)
PUBLISHED = ("smooth", "interval", "accumulated")


@functools.cache
def calibration_of(
    passes: Passes = "batched", steps: int = STEPS, sensitivity: int = 1, final: bool = True
) -> Calibration:
    sampler = ToySampler(Mixture((1.0, 0.5), steps), lambda: OneStep(steps), passes, samples=6)
    taken = sampler.value(run=sampler if final else sampler.without_latent)
    return calibrate(taken, seeds=(0, 1), max_lag=6, sensitivity=sensitivity, progress=False)


@functools.cache
def planner_of(target: str = "auto", passes: Passes = "batched") -> Planner:
    calibration = calibration_of() if passes == "batched" else calibration_of(passes)
    return Planner(calibration, target=target)


def error_of(schedule: Schedule) -> float:
    assert schedule.prediction is not None
    return schedule.prediction.error


# ---------------------------------------------------------------------------- the three dials


@pytest.mark.parametrize("target", ALL)
def test_compute_is_never_exceeded(target: str):
    for compute in (0.5, 0.55, 0.72, 0.9):
        schedule = planner_of(target).to_compute(compute)
        assert schedule.compute_fraction() <= compute + 1e-9
        assert schedule.skips


@pytest.mark.parametrize("target", ALL)
def test_a_speedup_is_a_compute_fraction(target: str):
    calibration = calibration_of()
    schedule = plan(calibration, speedup=1.6, target=target)
    assert schedule == plan(calibration, compute=1 / 1.6, target=target)
    assert schedule.predicted_speedup() >= 1.6 - 1e-9


@pytest.mark.parametrize("target", ["auto", "denoiser", "guidance", "site"])
def test_an_error_is_kept_by_the_least_compute_of_the_grid(target: str):
    """Half an evaluation less would not do; nor would anything less where errors fall steadily."""
    planner, grid = planner_of(target), {}
    for half in range(1, 2 * STEPS):
        try:
            grid[half] = error_of(planner.to_compute(half / (2 * STEPS)))
        except ScheduleError:
            grid[half] = math.inf
    steady = all(later <= earlier for earlier, later in itertools.pairwise(grid.values()))
    for error in (0.1, 0.05, 0.02):
        schedule = planner.to_error(error)
        assert error_of(schedule) <= error
        fits = [half for half, known in grid.items() if known <= error]
        compute = schedule.source.settings["compute"]
        assert isinstance(compute, float)
        asked = round(compute * 2 * STEPS)
        assert asked in fits
        assert asked - 1 not in fits
        if steady:
            assert asked == min(fits)
        assert plan(calibration_of(), error=error, target=target) == schedule
    assert steady or target != "denoiser"


def test_more_error_allows_less_compute():
    computes = [planner_of("denoiser").to_error(e).compute_fraction() for e in (0.01, 0.03, 0.1, 1)]
    assert computes == sorted(computes, reverse=True)
    assert computes[0] > computes[-1]


@pytest.mark.parametrize("target", ["auto", "denoiser"])
def test_an_error_that_nothing_keeps_is_refused(target: str):
    with pytest.raises(ScheduleError, match="no schedule that skips anything keeps the error with"):
        planner_of(target).to_error(1e-9)


# ---------------------------------------------------------------------------- targets


def test_targets_are_what_they_say():
    calibration = calibration_of()
    rows = {t: planner_of(t).to_compute(0.55).rows for t in TARGETS}
    assert set(rows["denoiser"]) == {"denoiser"}
    assert set(rows["guidance"]) <= {"denoiser", "guidance"}
    assert set(rows["site"]) == {"parts.0", "parts.1"}
    assert set(rows["kind"]) == set(rows["evaluation"]) == set(rows["smooth"]) == {"part"}
    assert rows["interval"] == interval_of(calibration, 3).rows
    assert rows["smooth"] == smooth_to_compute(calibration, compute=0.55, max_lag=3).rows
    assert rows["denoiser"] == plan_evaluations(calibration, compute=0.55).rows
    guided = plan_evaluations(calibration, compute=0.55, guidance=True)
    assert rows["guidance"] == guided.rows


def test_auto_takes_what_is_predicted_to_be_best():
    chosen = set()
    for compute in (0.5, 0.6, 0.7, 0.8, 0.9):
        candidates = planner_of().candidates(compute)
        errors = [error_of(schedule) for schedule in candidates.values()]
        assert errors == sorted(errors)
        assert planner_of().to_compute(compute) == next(iter(candidates.values()))
        alone = {t: planner_of(t).to_compute(compute) for t in ("denoiser", "guidance", "site")}
        assert all(candidates[target] == schedule for target, schedule in alone.items())
        assert set(candidates) == {"denoiser", "guidance", "site", "smooth"}
        chosen.add(next(iter(candidates)))
    assert chosen


def test_auto_leaves_out_what_cannot_be_planned():
    assert set(planner_of(passes="one").candidates(0.6)) == {"denoiser", "site", "smooth"}
    assert "site" not in planner_of().candidates(0.2)  # fills would reach too far
    without = Planner(calibration_of(final=False))
    assert without.to_compute(0.5).skips


# ---------------------------------------------------------------------------- the front


@pytest.mark.parametrize("computes", [(0.3, 0.5, 0.7, 0.9), (0.55,), ()])
def test_the_front_marks_what_nothing_beats(computes: Sequence[float]):
    points = planner_of().front(computes)
    assert [p.compute for p in points] == sorted((p.compute for p in points), reverse=True)
    for point in points:
        assert point.compute == point.schedule.compute_fraction()
        assert point.error == error_of(point.schedule)
        beaten = any(_better(other, point) for other in points)
        assert point.best != beaten
    best = sorted({(p.compute, p.error) for p in points if p.best})
    assert all(one[1] > other[1] for one, other in itertools.pairwise(best))
    assert bool(best) == bool(computes)
    names = {p.name for p in points}
    assert names <= {"denoiser", "guidance", "site", "smooth"}


def _better(one: Point, other: Point) -> bool:
    pair = (one.compute, one.error), (other.compute, other.error)
    return pair[0] != pair[1] and pair[0][0] <= pair[1][0] and pair[0][1] <= pair[1][1]


def test_the_front_of_one_target_is_of_that_target():
    points = planner_of("kind").front((0.6, 0.8))
    assert [p.name for p in points] == ["kind", "kind"]


# ---------------------------------------------------------------------------- limits


@pytest.mark.parametrize("target", ALL)
def test_limits_hold_for_every_target(target: str):
    limits = Limits(first=2, pinned=(5, 9), max_lag=2)
    try:
        schedule = plan(calibration_of(), compute=0.75, target=target, limits=limits)
    except ScheduleError:
        assert target in PUBLISHED  # these rules know no pinned evaluations
        return
    rows = schedule.rows.values()
    for row in rows:
        assert all(row[i] for i in (0, 1, 5, 9))
        assert "000" not in "".join(map(str, row)) or "guidance" in schedule.rows


@pytest.mark.parametrize("target", ["auto", "denoiser", "site"])
def test_a_cap_on_memory_is_kept_or_refused(target: str):
    calibration = calibration_of()
    free = plan(calibration, compute=0.6, target=target).predicted_bytes()
    limits = Limits(max_bytes=free)
    capped = plan(calibration, compute=0.6, target=target, limits=limits)
    assert capped.predicted_bytes() <= free
    with pytest.raises(ScheduleError, match="no plan fits into 1 bytes"):
        plan(calibration, compute=0.6, target=target, limits=Limits(max_bytes=1))


@pytest.mark.parametrize("target", ["denoiser", "guidance"])
def test_fills_have_as_many_terms_as_fit_into_memory(target: str):
    calibration = calibration_of()
    how = {"compute": 0.6, "guidance": target == "guidance"}
    plans = [plan_evaluations(calibration, terms=terms, **how) for terms in (3, 2, 1)]
    sizes = [one.predicted_bytes() for one in plans]
    assert sizes[0] > sizes[2]
    for one, size in zip(plans, sizes, strict=True):
        limits = Limits(max_bytes=size)
        capped = plan(calibration, compute=0.6, target=target, limits=limits)
        assert capped.predicted_bytes() <= size
        assert error_of(capped) <= error_of(one)


@pytest.mark.parametrize("dial", [partial(plan, compute=0.7), partial(auto, error=0.9)])
def test_short_runs_are_told_to_gain_little(dial: Callable[[Calibration], object]):
    calibration = calibration_of(steps=6)
    with pytest.warns(
        SmoothCacheWarning, match="6 evaluations leaves little to cache: only few can be skipped"
    ):
        dial(calibration)


def test_distinct_rows_are_limited():
    schedule = plan(calibration_of(), compute=0.7, target="site", limits=Limits(max_rows=1))
    assert len(set(schedule.rows.values())) == 1


def test_smoothcaches_rule_is_left_out_where_it_breaks_a_limit():
    calibration = calibration_of()
    row = next(iter(smooth_to_compute(calibration, compute=0.6, max_lag=3).rows.values()))
    skipped = row.index(0)
    planner = Planner(calibration, limits=Limits(pinned=(skipped,)))
    assert "smooth" not in planner.candidates(0.6)
    with pytest.raises(ScheduleError, match="SmoothCache's rule cannot keep `first` or `pinned`"):
        plan(calibration, compute=0.6, target="smooth", limits=Limits(first=skipped + 1))


# ---------------------------------------------------------------------------- fill rules


@pytest.mark.parametrize("target", ["auto", "site", "kind", "evaluation"])
@pytest.mark.parametrize("rule", [reuse(), taylor(1), linear(2)], ids=lambda rule: rule.name)
def test_parts_are_filled_by_the_rule_that_is_given(target: str, rule: FillRule):
    schedule = plan(calibration_of(), compute=0.7, target=target, fill=rule)
    assert schedule.source.settings["fill"] == rule.name
    per: Any = "site" if target == "auto" else target
    assert schedule == plan_sites(calibration_of(), compute=0.7, fill=rule, per=per)


def test_a_rule_is_kept_under_a_cap_on_memory():
    limits = Limits(max_bytes=plan(calibration_of(), compute=0.7, target="site").predicted_bytes())
    schedule = plan(calibration_of(), compute=0.7, target="site", fill=taylor(1), limits=limits)
    assert schedule.source.settings["fill"] == "taylor-1"


def test_auto_compares_what_takes_the_rule():
    planner = Planner(calibration_of(), fill=reuse())
    assert set(planner.candidates(0.7)) == {"site"}
    choice = auto(calibration_of(), error=0.9, fill=reuse())
    assert {point.schedule.source.settings["fill"] for point in choice.points} == {"reuse"}


@pytest.mark.parametrize("target", ["denoiser", "guidance", "smooth", "interval"])
def test_a_rule_is_refused_where_it_would_not_be_used(target: str):
    with pytest.raises(ScheduleError, match=f"target '{target}' makes its own fills"):
        plan(calibration_of(), compute=0.7, target=target, fill=taylor(1))


# ---------------------------------------------------------------------------- warnings


def test_few_evaluations_are_told():
    with pytest.warns(
        SmoothCacheWarning, match="of 5 evaluations leaves little to cache: only few can be skipped"
    ):
        schedule = plan(calibration_of("one", 5), compute=0.6)
    assert schedule.skips
    with pytest.warns(
        SmoothCacheWarning, match="of 10 evaluations leaves little to cache: nothing is skipped"
    ) as told:
        plan(calibration_of(), compute=1.0, target="denoiser")
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(calibration_of(), compute=0.9, target="denoiser")


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({}, "give exactly one of compute, speedup and error, got none"),
        (
            {"compute": 0.5, "error": 0.1},
            r"give exactly one of .*, got \{'compute': 0.5, 'error': 0.1\}",
        ),
        ({"compute": 0.0}, r"compute is a fraction in \(0, 1\], got 0.0"),
        ({"compute": 1.1}, r"compute is a fraction in \(0, 1\], got 1.1"),
        ({"compute": math.nan}, r"compute is a fraction in \(0, 1\], got nan"),
        ({"compute": 0.01}, "compute 0.01 cannot be reached: .* the minimum is 0.1"),
        ({"speedup": 0.9}, "speedup is at least 1, got 0.9"),
        ({"speedup": math.nan}, "speedup is at least 1, got nan"),
        ({"speedup": math.inf}, "speedup is at least 1, got inf"),
        ({"speedup": 100.0}, "compute 0.01 cannot be reached"),
        ({"error": 0.0}, "error is a relative L2 error above 0, got 0.0"),
        ({"error": -1.0}, "error is a relative L2 error above 0, got -1.0"),
        ({"error": math.nan}, "error is a relative L2 error above 0, got nan"),
        (
            {"compute": 0.5, "target": "blocks"},
            r"target is 'auto' or one of \['denoiser'.*'blocks'",
        ),
        ({"compute": 0.5, "limits": Limits(first=11)}, "first is from 1 to 10"),
        ({"compute": 0.5, "limits": Limits(pinned=(10,))}, r"from 0 to 9, got \[10\]"),
    ],
)
def test_wrong_dials_are_refused_in_a_line(dials: dict[str, Any], message: str):
    with pytest.raises(ScheduleError, match=message) as told:
        plan(calibration_of(), **dials)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("target", ALL)
def test_a_calibration_without_sensitivities_is_refused(target: str):
    calibration = calibration_of(sensitivity=0)
    with pytest.raises(ScheduleError, match=r"sensitivit|unconditional pass cannot be skipped"):
        plan(calibration, compute=0.6, target=target)
    clipped = replace(calibration, remark="the sampler clips")
    if target in ("auto", "denoiser", "site"):
        with pytest.raises(ScheduleError, match="the sampler clips"):
            plan(clipped, compute=0.6, target=target)


def test_too_few_samples_leave_the_sites():
    few = with_samples(calibration_of(), 3)
    with pytest.raises(ScheduleError, match="are too few to fit 4 coefficients per evaluation"):
        plan(few, compute=0.6, target="denoiser")
    assert set(Planner(few).candidates(0.6)) <= {"site", "smooth"}
