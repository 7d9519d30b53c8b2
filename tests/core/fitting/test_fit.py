"""Fitting schedules on their own trajectory, and refining them by the error they make."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import anatomy
from kit.planning import MIXTURE, Mixture, OneStep, Passes, ToySampler, error_of
from smoothcache_core import (
    Calibration,
    Schedule,
    SmoothCacheWarning,
    cached,
    calibrate,
    fit,
    plan,
)
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.errors import CalibrationError, SamplerError, ScheduleError

E = 10
SEEDS = (0, 1)
ROWS = {"denoiser": (1, 0, 1, 0, 0, 1, 0, 1, 0, 0)}
GUIDED = {"denoiser": (1, 1, 0, 1, 1, 0, 1, 1, 1, 0), "guidance": (1, 1, 0, 0, 1, 0, 0, 1, 0, 0)}


def toy(bend: float = 0.0, passes: Passes = "one") -> tuple[Mixture, ToySampler]:
    model = Mixture([1.0, 0.5], E, bend=bend)
    return model, ToySampler(model, lambda: OneStep(E), passes=passes, samples=3)


def fitted(model: Mixture, sampler: ToySampler, schedule: Schedule, **settings: Any) -> Schedule:
    settings = {"seeds": SEEDS, "progress": False} | settings
    return fit(sampler.value(model=model), schedule, **settings)


def calibrated(model: Mixture, sampler: ToySampler) -> Calibration:
    return calibrate(sampler.value(model=model), seeds=SEEDS, max_lag=3, progress=False)


def rows(given: dict[str, tuple[int, ...]]) -> Schedule:
    return Schedule(evaluations=E, rows=given)


CASES: list[tuple[Passes, dict[str, tuple[int, ...]]]] = [
    ("one", ROWS),
    ("batched", ROWS),
    ("batched", GUIDED),
    ("sequential", ROWS),
    ("sequential", GUIDED),
]


@pytest.mark.parametrize(("passes", "given"), CASES)
@pytest.mark.parametrize("bend", [0.0, 0.2])
def test_the_measured_error_is_that_of_the_schedule(
    bend: float, passes: Passes, given: dict[str, tuple[int, ...]]
):
    model, sampler = toy(bend, passes)
    schedule = fitted(model, sampler, rows(given))
    prediction = schedule.prediction
    assert prediction is not None
    assert prediction.measured
    assert prediction.error == pytest.approx(error_of(model, sampler, SEEDS, schedule), rel=1e-4)
    assert prediction.low is not None
    assert prediction.high is not None
    assert prediction.low <= prediction.error <= prediction.high


@pytest.mark.parametrize(("passes", "given"), CASES)
def test_fills_are_better_than_reuse(passes: Passes, given: dict[str, tuple[int, ...]]):
    model, sampler = toy(0.2, passes)
    schedule = fitted(model, sampler, rows(given))
    assert error_of(model, sampler, SEEDS, schedule) < error_of(model, sampler, SEEDS, rows(given))


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_with_an_affine_denoiser_it_is_what_was_planned(passes: Passes):
    model, sampler = toy(0.0, passes)
    sampler.samples = 4
    target = "denoiser" if passes == "one" else "guidance"
    planned = plan(calibrated(model, sampler), compute=0.6, target=target)
    again = fitted(model, sampler, planned)
    for site in (DENOISER, GUIDANCE):
        one, other = planned.terms(site), again.terms(site)
        assert [len(terms) for terms in one] == [len(terms) for terms in other]
    error = error_of(model, sampler, SEEDS, planned)
    assert error_of(model, sampler, SEEDS, again) == pytest.approx(error, rel=0.05, abs=1e-5)


def test_no_evaluation_is_computed_twice():
    model, sampler = toy(0.2)
    model.forget()
    fitted(model, sampler, rows(ROWS))
    assert model.calls == len(SEEDS) * (E + sum(ROWS["denoiser"]))


def test_terms_and_input_are_as_asked_for():
    model, sampler = toy(0.2)
    fill = fitted(model, sampler, rows(ROWS), terms=2, use_input=False).fill(DENOISER)
    assert not fill.inputs
    assert {i: len(terms) for i, terms in fill.terms.items()} == {
        1: 1,
        3: 2,
        4: 2,
        6: 2,
        8: 2,
        9: 2,
    }
    full = fitted(model, sampler, rows(ROWS)).fill(DENOISER)
    assert set(full.inputs) == {1, 3, 4, 6, 8, 9}
    assert len(full.terms[9]) == 3


def test_a_schedule_of_sites_is_measured():
    model, sampler = toy(0.2)
    schedule = rows({"part": (1, 0, 1, 0, 1, 0, 1, 0, 1, 1)})
    measured = fitted(model, sampler, schedule)
    assert (measured.rows, measured.fills) == (schedule.rows, schedule.fills)
    assert measured.prediction is not None
    assert measured.prediction.error == pytest.approx(
        error_of(model, sampler, SEEDS, schedule), rel=1e-5
    )


def test_its_seeds_are_told_and_the_model_is_as_it_was():
    model, sampler = toy(0.2)
    model.forget()
    before = anatomy(model)
    schedule = fitted(model, sampler, rows(ROWS), seeds=(7, 3))
    model.forget()
    assert anatomy(model) == before
    assert schedule.source.seeds == (3, 7)
    assert schedule.source.settings["fitted_samples"] == 6
    assert schedule.source.settings["fill"] == "fitted(3)"
    assert schedule.source.settings["use_input"] is True


def test_one_sample_has_a_wide_interval():
    model, sampler = toy(0.2)
    sampler.samples = 1
    schedule = rows({"part": ROWS["denoiser"]})
    prediction = fitted(model, sampler, schedule, seeds=(0,)).prediction
    assert prediction is not None
    assert prediction.low is not None
    assert prediction.high is not None
    assert prediction.low < prediction.error / 2
    assert prediction.high > 2 * prediction.error


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no seeds": ({"seeds": ()}, "distinct seeds"),
    "a seed twice": ({"seeds": (1, 1)}, "distinct seeds"),
    "no terms": ({"terms": 0}, "terms is 1 to 3, got 0"),
    "four terms": ({"terms": 4}, "terms is 1 to 3, got 4"),
    "trials and terms": ({"trials": 2, "terms": 2}, "give trials or terms=2, not both"),
    "trials, no latent": ({"trials": 2, "use_input": False}, "trials or use_input=False, not both"),
    "fewer than no trials": ({"trials": -1}, "trials is at least 0, got -1"),
    "a checkpoint alone": ({"checkpoint": "tried.json"}, "give trials too"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_settings_are_refused(case: str):
    settings, message = BAD[case]
    model, sampler = toy()
    with pytest.raises(CalibrationError, match=message):
        fitted(model, sampler, rows(ROWS), **settings)


@pytest.mark.parametrize(
    ("terms", "use_input", "fewest"), [(3, True, 6), (3, False, 4), (1, True, 3)]
)
def test_too_few_samples_for_the_coefficients_are_refused(terms: int, use_input: bool, fewest: int):
    model, sampler = toy()
    sampler.samples = 1
    how: Any = {"terms": terms, "use_input": use_input}
    message = (
        rf"{fewest - 1} samples of 12 latent entries are too few .*; fit with {fewest} samples"
    )
    with pytest.raises(ScheduleError, match=message):
        fitted(model, sampler, rows(ROWS), seeds=range(fewest - 1), **how)
    assert fitted(model, sampler, rows(ROWS), seeds=range(fewest), **how).prediction


def test_another_number_of_evaluations_is_refused():
    model, sampler = toy()
    with pytest.raises(ScheduleError, match=f"{E} evaluations, the schedule 3"):
        fitted(model, sampler, Schedule(evaluations=3, rows={"denoiser": (1, 0, 1)}))


@pytest.mark.parametrize("result", [None, torch.zeros(3), torch.zeros(2)])
@pytest.mark.parametrize("given", [ROWS, {"part": (1, 0) * 5}], ids=["denoiser", "sites"])
def test_a_sampler_must_return_its_final_latent(given: dict[str, tuple[int, ...]], result: object):
    model, sampler = toy()

    def sample(seed: int) -> object:
        sampler(seed)
        return result

    model.forget()
    with pytest.raises(SamplerError, match=r"`run` must return the final latents?, "):
        fit(sampler.value(run=sample), rows(given), seeds=SEEDS, progress=False)
    assert model.calls == E  # one run is enough


def test_the_solver_is_named_where_no_scheduler_names_it(recwarn: pytest.WarningsRecorder):
    model, sampler = toy()
    known = sampler.value(solver="one-step")
    calibration = calibrate(known, seeds=SEEDS, max_lag=3, progress=False)
    schedule = fit(known, plan(calibration, compute=0.6, target="denoiser"), seeds=SEEDS,
                   progress=False)  # fmt: skip
    assert schedule.fingerprint.solver == "one-step"
    with cached(model, MIXTURE, schedule, solver="one-step"):
        sampler(5)
    assert not recwarn.list
    with (
        pytest.warns(SmoothCacheWarning, match="'two-step'"),
        cached(model, MIXTURE, schedule, solver="two-step"),
    ):
        sampler(5)


def test_the_model_is_restored_after_an_exception():
    model, sampler = toy()
    before = anatomy(model)
    calls = 0

    def sample(seed: int) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyError("stop")
        return sampler(seed)

    with pytest.raises(KeyError, match="stop"):
        fit(sampler.value(run=sample), rows(ROWS), seeds=SEEDS, progress=False)
    model.forget()
    assert anatomy(model) == before


def test_fills_that_are_better_stay(monkeypatch: pytest.MonkeyPatch):
    model, sampler = toy(0.2)
    good = fitted(model, sampler, rows(ROWS))
    wrong = "smoothcache_core.fitting.evaluations.NormalEquations.solve"
    monkeypatch.setattr(wrong, lambda normal: 3.0 * np.ones(len(normal._right)))
    again = fitted(model, sampler, good)
    assert again.fills == good.fills
    assert again.prediction is not None
    assert good.prediction is not None
    assert again.prediction.error == pytest.approx(good.prediction.error, rel=1e-6)
    bad = fitted(model, sampler, rows(ROWS))
    assert bad.prediction is not None
    assert bad.prediction.error > 10 * good.prediction.error


# ---------------------------------------------------------------------------- refining


def refined(model: Mixture, sampler: ToySampler, schedule: Schedule, **settings: Any) -> Schedule:
    return fitted(model, sampler, schedule, **settings)


def cost(model: Mixture, act: Callable[[], object]) -> int:
    """Return how often `act` calls the denoiser."""
    model.forget()
    act()
    return model.calls


@pytest.mark.parametrize(("passes", "given"), CASES)
def test_refining_lowers_the_error_at_equal_compute(
    passes: Passes, given: dict[str, tuple[int, ...]]
):
    model, sampler = toy(0.3, passes)
    start = fitted(model, sampler, rows(given))
    best = refined(model, sampler, rows(given), trials=25)
    assert start.prediction is not None
    assert best.prediction is not None
    assert best.prediction.error < start.prediction.error
    assert {key: sum(row) for key, row in best.rows.items()} == {
        key: sum(row) for key, row in given.items()
    }
    assert best.prediction.error == pytest.approx(error_of(model, sampler, SEEDS, best), rel=1e-4)


def test_every_trial_costs_its_computed_evaluations():
    model, sampler = toy(0.3)
    each = len(SEEDS) * sum(ROWS["denoiser"])
    calls = cost(model, lambda: refined(model, sampler, rows(ROWS), trials=4))
    assert calls == len(SEEDS) * E + (4 + 1) * each  # the best is fitted once more


def test_what_was_tried_is_not_tried_again(tmp_path: Path):
    model, sampler = toy(0.3)
    file = tmp_path / "trials.json"
    each = len(SEEDS) * sum(ROWS["denoiser"])
    whole = refined(model, sampler, rows(ROWS), trials=9)
    refined(model, sampler, rows(ROWS), trials=5, checkpoint=file)
    assert len(json.loads(file.read_text())["errors"]) == 5
    again: list[Schedule] = []
    calls = cost(
        model,
        lambda: again.append(refined(model, sampler, rows(ROWS), trials=9, checkpoint=file)),
    )
    assert calls == 1 + len(SEEDS) * E + (4 + 1) * each  # the first looks whose trials they are
    assert again[0].rows == whole.rows


def refuse_trials(model: Mixture, sampler: ToySampler, file: Path) -> None:
    with pytest.raises(ScheduleError, match="of something else: the weights are those of another"):
        refined(model, sampler, rows(ROWS), trials=1, checkpoint=file)


def test_trials_of_something_else_are_refused(tmp_path: Path):
    model, sampler = toy(0.3)
    file = tmp_path / "trials.json"
    refined(model, sampler, rows(ROWS), trials=1, checkpoint=file)
    with pytest.raises(ScheduleError, match="another schedule, model or seeds"):
        refined(model, sampler, rows(ROWS), trials=1, checkpoint=file, seeds=(5,))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.0)
    calls = cost(model, lambda: refuse_trials(model, sampler, file))
    assert calls == 1
    file.write_text("{}")
    with pytest.raises(ScheduleError, match="holds no trials"):
        refined(model, sampler, rows(ROWS), trials=1, checkpoint=file)


def test_what_cannot_be_refined_is_refused():
    model, sampler = toy()
    with pytest.raises(ScheduleError, match="whole evaluations"):
        refined(model, sampler, rows({"part": (1, 0) * 5}), trials=1)
