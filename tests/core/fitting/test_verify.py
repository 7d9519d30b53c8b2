"""Verifying a calibration: plans are run, and what they really do is noted."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from kit.planning import Mixture, OneStep, ToySampler, error_of
from smoothcache_core import Calibration, calibrate, plan, verify
from smoothcache_core.errors import CalibrationError
from smoothcache_core.sources import plan_evaluations

E = 12


def toy(bend: float = 0.0) -> tuple[Mixture, ToySampler]:
    model = Mixture([1.0, 0.5], E, bend=bend)
    return model, ToySampler(model, lambda: OneStep(E), passes="batched", samples=3)


def calibrated(model: Mixture, sampler: ToySampler, **settings: Any) -> Calibration:
    settings = {"seeds": (0, 1), "max_lag": 4, "progress": False} | settings
    return calibrate(sampler.value(model=model), **settings)


def test_what_is_noted_is_what_the_plans_are_foretold_and_do():
    model, sampler = toy(bend=0.3)
    plain = calibrated(model, sampler)
    known = verify(sampler.value(model=model), plain, progress=False)
    assert {each.seed for each in known.outcomes} == {0}
    assert Counter(each.estimator for each in known.outcomes)["whole"] == 3
    schedule = plan_evaluations(plain, compute=0.55)
    assert schedule.prediction is not None
    noted = next(e for e in known.outcomes if e.predicted == schedule.prediction.error)
    assert noted.compute == schedule.compute_fraction()
    assert noted.measured == pytest.approx(error_of(model, sampler, (0,), schedule), rel=1e-5)
    assert replace(known, outcomes=()) == plain


def test_plans_of_a_verified_calibration_are_foretold_better():
    """A denoiser that bends errs otherwise than a linear model of it says."""
    model, sampler = toy(bend=1.0)
    plain = calibrated(model, sampler)
    known = verify(sampler.value(model=model), plain, progress=False)
    off = []
    for calibration in (plain, known):
        schedule = plan(calibration, compute=0.45, target="denoiser")
        assert schedule.prediction is not None
        true = error_of(model, sampler, (5, 6), schedule)
        off.append(max(schedule.prediction.error / true, true / schedule.prediction.error))
    assert off[1] < off[0]


def test_verifying_again_adds_seeds_and_begins_with_the_constants_alone():
    model, sampler = toy(bend=0.3)
    value = sampler.value(model=model)
    once = verify(value, calibrated(model, sampler), progress=False)
    assert verify(value, once, progress=False) == once
    both = verify(value, once, seeds=(7,), progress=False)
    assert len(both.outcomes) == 2 * len(once.outcomes)
    assert {e.predicted for e in both.outcomes} == {e.predicted for e in once.outcomes}


def test_without_sensitivities_or_with_other_evaluations_it_is_refused():
    model, sampler = toy()
    value = sampler.value(model=model)
    with pytest.raises(CalibrationError, match="calibrate with `sensitivity=2`"):
        verify(value, calibrated(model, sampler, sensitivity=0), progress=False)
    longer = Mixture([1.0, 0.5], E + 1)
    other = ToySampler(longer, lambda: OneStep(E + 1), passes="batched", samples=3)
    with pytest.raises(CalibrationError, match="the run has 13 evaluations, the calibration 12"):
        verify(other.value(model=longer), calibrated(model, sampler), progress=False)
