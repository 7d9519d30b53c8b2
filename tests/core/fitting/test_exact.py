"""Fitting toward the exact solution."""

from typing import Any

import pytest
import torch
from kit.exact import CURVED, NO_SOLUTION, Curved, EulerSampler
from kit.planning import Passes
from smoothcache_core import Schedule, SmoothCacheWarning, cached, fit
from smoothcache_core.errors import CalibrationError, SamplerError, ScheduleError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.sampling.exact_solution import exact_solution
from smoothcache_core.sampling.recording import record
from smoothcache_core.schedule import Fill

STEPS = 10
ALL = {"denoiser": (1,) * STEPS}
HALF = {"denoiser": (1, 1, 0, 1, 0, 1, 0, 1, 0, 0)}
HALVES = {"denoiser": (1,) * STEPS, "guidance": (1, 1, 0, 1, 0, 1, 0, 1, 0, 0)}
SITES = {f"parts.{n}": (1, 1, 0, 1, 0, 1, 0, 1, 0, 1) for n in range(3)}


def made(passes: Passes = "one", **settings: Any) -> EulerSampler:
    return EulerSampler(Curved(), STEPS, passes, samples=8, **settings)


def fitted(sampler: EulerSampler, rows: Any, **settings: Any) -> Schedule:
    given: dict[str, Any] = {"seeds": (0, 1), "progress": False, "toward": "exact"}
    schedule = Schedule(evaluations=STEPS, rows=rows)
    return fit(sampler.value(), schedule, **given | settings)


def distances(sampler: EulerSampler, schedule: Schedule, seed: int = 9) -> tuple[float, float]:
    """Return how far cached and plain samples are from the exact solution, by plain use."""
    value = sampler.value()
    found = exact_solution(value, record(value, seed))
    exact = found.final.reshape(sampler.samples, -1)
    with cached(value.model, CURVED, schedule, branches=value.branches):
        other = sampler(seed).flatten(1)
    return float(relative_l2(exact, other).mean()), found.distance


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_at_the_same_cost_samples_are_much_nearer_to_the_exact_solution(passes: Passes):
    sampler = made(passes)
    schedule = fitted(sampler, ALL)
    assert schedule.rows == ALL
    assert schedule.corrected is not None
    assert schedule.corrected.terms.keys() == set(range(STEPS))
    cached_one, plain = distances(sampler, schedule)
    assert cached_one < 0.3 * plain


@pytest.mark.parametrize(
    ("passes", "rows"), [("one", HALF), ("batched", HALF), ("batched", HALVES), ("one", SITES)]
)
def test_with_less_computed_samples_are_nearer_than_the_plain_run(passes: Passes, rows: Any):
    sampler = made(passes)
    cached_one, plain = distances(sampler, fitted(sampler, rows))
    toward_plain, _ = distances(sampler, fitted(sampler, rows, toward="plain"))
    assert cached_one < min(plain, toward_plain)


def test_passes_of_their_own_with_filled_sites_are_corrected():
    sampler = made("sequential")
    cached_one, plain = distances(sampler, fitted(sampler, SITES, seeds=(0, 1, 2)))
    assert cached_one < plain


def test_both_distances_are_measured_and_the_aimed_one_is_the_error():
    sampler = made()
    prediction = fitted(sampler, HALF).prediction
    assert prediction is not None
    known = prediction.exact
    assert known is not None
    assert prediction.toward == known.toward == "exact"
    assert prediction.error == known.to_exact < known.plain_to_exact
    assert known.to_plain == pytest.approx(known.plain_to_exact, rel=0.5)
    assert "the exact solution" in repr(prediction)
    own, plain = distances(sampler, fitted(sampler, HALF), seed=0)
    assert known.plain_to_exact == pytest.approx(plain, rel=0.5)
    assert known.to_exact == pytest.approx(own, rel=0.5)


def test_what_is_fitted_again_toward_the_plain_run_is_not_corrected():
    sampler = made()
    again = fit(
        sampler.value(), fitted(sampler, HALF), seeds=(0, 1), progress=False, toward="plain"
    )
    assert again.corrected is None
    assert again.prediction is not None
    assert again.prediction.toward == "plain"


def test_rows_are_refined_by_the_distance_to_the_exact_solution():
    sampler = made()
    first = fitted(sampler, HALF)
    best = fitted(sampler, HALF, trials=6)
    assert best.prediction is not None
    assert first.prediction is not None
    assert best.prediction.error <= first.prediction.error
    assert sum(best.rows["denoiser"]) == sum(HALF["denoiser"])


def test_a_fit_is_repeated_bit_for_bit_and_leaves_the_model_as_it_was():
    sampler = made()
    before = sampler(3)
    assert fitted(sampler, HALF) == fitted(sampler, HALF)
    assert torch.equal(sampler(3), before)


def test_where_nothing_is_gained_it_is_told():
    least = {"denoiser": (1,) + (0,) * (STEPS - 1)}
    with pytest.warns(SmoothCacheWarning, match="no nearer than the plain run"):
        found = fitted(made(), least)
    assert found.prediction is not None
    assert found.prediction.exact is not None
    assert not found.prediction.exact.gains


def test_without_finer_runs_it_is_refused_before_anything_is_run():
    sampler = made()
    schedule = Schedule(evaluations=STEPS, rows=HALF)
    with pytest.raises(SamplerError, match="needs finer runs"):
        fit(sampler.value(finer=None), schedule, seeds=(0,), progress=False, toward="exact")
    assert not sampler.model.calls


@pytest.mark.parametrize("kind", NO_SOLUTION)
def test_where_there_is_no_exact_solution_it_is_refused(kind: str):
    settings, message = NO_SOLUTION[kind]
    with pytest.raises(CalibrationError, match=message):
        fitted(made(**settings), HALF)


def test_schedules_of_solvers_with_noise_are_refused():
    sampler = made()
    noisy = Fill(terms={2: (1.0,)}, anchors={2: 0.1})
    schedule = Schedule(evaluations=STEPS, rows=HALF, fills={"denoiser": noisy})
    with pytest.raises(ScheduleError, match="adds noise of its own"):
        fit(sampler.value(), schedule, seeds=(0,), progress=False, toward="exact")
