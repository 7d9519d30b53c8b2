"""Planning toward the exact solution."""

from pathlib import Path
from typing import Any

import pytest
from kit.exact import CURVED, Curved, EulerSampler
from smoothcache_core import Calibration, Schedule, cached, calibrate, plan
from smoothcache_core.adapters import DENOISER
from smoothcache_core.errors import ScheduleError, SmoothCacheWarning
from smoothcache_core.metrics import relative_l2
from smoothcache_core.planning import Planner, auto
from smoothcache_core.sampling.exact_solution import ExactSolution, exact_solution
from smoothcache_core.sampling.recording import record
from smoothcache_core.schedule import Storage

STEPS = 16
MADE = EulerSampler(Curved(), STEPS, "batched", samples=8)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(
        MADE.value(), seeds=range(3), progress=False, reference="exact", max_lag=6, sensitivity=1
    )


@pytest.fixture(scope="module")
def solution() -> ExactSolution:
    return exact_solution(MADE.value(), record(MADE.value(), 9))


def distance(schedule: Schedule, solution: ExactSolution) -> float:
    """Return how far samples of another seed are from the exact solution."""
    with cached(MADE.model, CURVED, schedule):
        found = MADE(9).flatten(1)
    return float(relative_l2(solution.final.reshape(MADE.samples, -1), found).mean())


@pytest.mark.parametrize(
    ("target", "compute", "most"),
    [
        ("denoiser", 1.0, 0.1),
        ("denoiser", 0.5, 0.35),
        ("guidance", 0.5, 0.3),
        ("site", 0.6, 0.35),
    ],
)
def test_samples_are_nearer_than_the_plain_run_as_predicted(
    calibration: Calibration, solution: ExactSolution, target: str, compute: float, most: float
):
    schedule = plan(calibration, compute=compute, target=target, toward="exact")
    assert schedule.compute_fraction() <= compute
    assert schedule.corrected is not None
    known = schedule.prediction
    assert known is not None
    assert known.exact is not None
    assert known.error == known.exact.to_exact
    measured = distance(schedule, solution)
    assert measured < most * solution.distance
    assert known.error / 2 < measured < 2 * known.error
    assert known.exact.plain_to_exact == pytest.approx(solution.distance, rel=0.3)
    assert known.exact.to_plain == pytest.approx(solution.distance, rel=0.5)


@pytest.mark.parametrize(
    ("target", "compute"), [("denoiser", 0.5), ("guidance", 0.5), ("site", 0.6)]
)
def test_corrections_make_samples_nearer_whatever_is_skipped(
    calibration: Calibration, solution: ExactSolution, target: str, compute: float
):
    schedule = plan(calibration, compute=compute, target=target, toward="exact")
    plain = plan(calibration, compute=compute, target=target)
    own = distance(schedule, solution)
    assert own < 0.5 * distance(schedule.changed(corrected=None), solution)
    assert own < 0.5 * distance(plain, solution)
    if target == "site":  # planned as toward the plain run, and corrected at the denoiser's output
        assert (schedule.rows, schedule.fills) == (plain.rows, plain.fills)
        assert "denoiser" not in schedule.rows


@pytest.mark.parametrize("steps", [2, 3])
def test_with_very_few_evaluations_it_is_told_that_nothing_is_gained(steps: int):
    made = EulerSampler(Curved(), steps, samples=8)
    few = calibrate(made.value(), seeds=(0,), progress=False, reference="exact", max_lag=1)
    with (
        pytest.warns(SmoothCacheWarning, match="leaves little to cache"),
        pytest.warns(SmoothCacheWarning, match="too large to be reliable"),
        pytest.warns(SmoothCacheWarning, match="no nearer than the plain run"),
    ):
        plan(few, compute=0.5, target="denoiser", toward="exact")


def test_what_is_planned_toward_the_plain_run_is_the_same_as_without_an_exact_one(
    calibration: Calibration,
):
    plain = calibrate(MADE.value(), seeds=range(3), progress=False, max_lag=6, sensitivity=1)
    for target in ("denoiser", "site"):
        planned, other = (plan(each, compute=0.5, target=target) for each in (calibration, plain))
        assert (planned.rows, planned.fills) == (other.rows, other.fills)
        assert planned.corrected is None
        assert planned.prediction is not None
        assert other.prediction is not None
        assert planned.prediction.error == other.prediction.error
        assert planned.prediction.exact is None


def test_rows_are_chosen_for_the_aim(calibration: Calibration, solution: ExactSolution):
    exact = plan(calibration, compute=0.4, target="denoiser", toward="exact")
    plain = plan(calibration, compute=0.4, target="denoiser")
    assert exact.row(DENOISER) != plain.row(DENOISER)
    assert distance(exact, solution) < distance(plain, solution)


def test_a_distance_is_kept_with_the_least_compute(calibration: Calibration):
    schedule = plan(calibration, error=0.02, target="denoiser", toward="exact")
    assert schedule.prediction is not None
    assert schedule.prediction.toward == "exact"
    assert schedule.prediction.error <= 0.02
    everything = plan(calibration, compute=1.0, target="denoiser", toward="exact")
    assert everything.prediction is not None
    least = everything.prediction.error
    assert not plan(calibration, error=1.01 * least, target="denoiser", toward="exact").skips
    with pytest.raises(ScheduleError, match="no schedule that skips anything"):
        plan(calibration, error=0.9 * least, target="denoiser", toward="exact")


def test_the_front_is_of_distances_to_the_exact_solution(calibration: Calibration):
    choice = auto(calibration, error=0.05, computes=(0.7, 0.5), toward="exact")
    assert {point.name for point in choice.points} >= {"denoiser", "guidance", "site"}
    assert all(point.schedule.corrected for point in choice.points)


def test_files_keep_what_was_aimed_at(calibration: Calibration, tmp_path: Path):
    schedule = plan(calibration, compute=0.5, toward="exact")
    assert Schedule.load(schedule.save(tmp_path / "exact.json")) == schedule
    assert schedule.source.settings["toward"] == "exact"


def test_rounding_adds_to_both_distances(calibration: Calibration):
    known, rounded = (
        plan(calibration, compute=0.5, target="denoiser", toward="exact", storage=storage)
        for storage in (None, Storage(dtype="bfloat16"))
    )
    before, after = known.prediction, rounded.prediction
    assert before is not None
    assert after is not None
    assert before.exact is not None
    assert after.exact is not None
    assert after.error == after.exact.to_exact > before.error
    assert after.exact.to_plain > before.exact.to_plain


def test_where_it_does_not_help_is_told(calibration: Calibration):
    with pytest.warns(SmoothCacheWarning, match="no nearer than the plain run"):
        plan(calibration, compute=0.13, target="denoiser", toward="exact")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"toward": "best"}, "toward is one of"),
        ({"toward": "exact"}, "calibrate with reference="),
    ],
)
def test_what_cannot_be_aimed_at_is_refused(settings: dict[str, Any], message: str):
    plain = calibrate(MADE.value(), seeds=(0,), progress=False, max_lag=2)
    with pytest.raises(ScheduleError, match=message):
        Planner(plain, **settings)
