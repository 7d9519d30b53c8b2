"""What `plan` tells before anybody relies on its prediction."""

import functools
import warnings
from dataclasses import replace

import pytest
from kit.planning import Mixture, OneStep, ToySampler
from smoothcache_core import Calibration, Schedule, SmoothCacheWarning, calibrate, plan
from smoothcache_core.numerics.reproducible_sum import cut, joined
from smoothcache_core.planning.cautions import cautions
from smoothcache_core.schedule import Prediction

STEPS = 12


@functools.cache
def calibration_of(samples: int, seeds: int = 1) -> Calibration:
    sampler = ToySampler(Mixture((1.0, 0.5), STEPS), lambda: OneStep(STEPS), samples=samples)
    return calibrate(sampler.value(), seeds=range(seeds), max_lag=6, progress=False)


def promised(error: float, reach: float) -> Schedule:
    prediction = Prediction(error=error, low=error / reach, high=error * reach)
    return Schedule(evaluations=2, rows={"attn": (1, 0)}, prediction=prediction)


@pytest.mark.parametrize(("samples", "seeds"), [(3, 1), (1, 3)])
def test_a_plan_from_few_samples_says_so_once_and_what_to_do(samples: int, seeds: int):
    calibration = calibration_of(samples, seeds)
    with pytest.warns(SmoothCacheWarning) as told:
        schedule = plan(calibration, compute=0.6, target="site")
    assert schedule.prediction is not None
    (message,) = [str(each.message) for each in told]
    assert "only 3 samples were calibrated" in message
    assert f"{schedule.prediction.low:.2g} to {schedule.prediction.high:.2g}" in message
    assert "calibrate 8 samples or more" in message


@pytest.mark.parametrize(("samples", "seeds"), [(4, 1), (2, 2), (8, 1)])
def test_a_plan_from_enough_samples_says_nothing(samples: int, seeds: int):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(calibration_of(samples, seeds), compute=0.6, target="site")


def test_an_error_that_may_be_as_large_as_the_sample_cannot_be_foretold():
    (told,) = cautions(calibration_of(8), promised(0.5, 2.0))
    assert "the predicted error 0.5 (0.25 to 1) is too large to be reliable" in told
    assert "`fit`" in told
    assert not cautions(calibration_of(8), promised(0.4, 2.0))


def test_one_sample_is_one_sample():
    (told,) = cautions(calibration_of(1, 1), promised(0.01, 3.0))
    assert "only 1 sample was calibrated," in told


def test_a_schedule_without_an_interval_is_told_nothing_of():
    bare = Schedule(evaluations=2, rows={"attn": (1, 0)})
    assert cautions(calibration_of(1, 1), bare) == []
    assert cautions(calibration_of(1, 1), bare.changed(prediction=Prediction(error=3.0))) == []


def test_a_denoiser_whose_answers_are_hardly_explained_is_told():
    calibration = calibration_of(8)
    dynamics = calibration.dynamics
    assert dynamics is not None
    followed = cut(joined(dynamics.sum_dxdy) / 100)
    strange = replace(calibration, dynamics=replace(dynamics, sum_dxdy=followed))
    (told,) = cautions(strange, promised(0.01, 5.0))
    assert "explains only" in told
    assert "0.002 to 0.05" in told
    assert "`fit` on 8 samples or more" in told
