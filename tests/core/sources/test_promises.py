"""From a planner's estimate to the error to expect, and how often its interval is kept."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from kit.helpers import with_samples
from kit.planning import Mixture, OneStep, Passes, ToySampler, error_of
from smoothcache_core import Calibration, Schedule, calibrate, fit
from smoothcache_core.schedule import Fill, Prediction, Provenance
from smoothcache_core.sources import plan_evaluations, plan_sites
from smoothcache_core.sources.promises import Promises

STEPS = 10
WHOLE = Schedule(evaluations=2, rows={"denoiser": (1, 0)}, source=Provenance(name="whole"))
REUSED = Schedule(evaluations=2, rows={"attn": (1, 0)})
FILLED = Schedule(evaluations=2, rows={"attn": (1, 0)}, fills={"attn": Fill(terms={1: (0.9,)})})
KINDS = (WHOLE, REUSED, FILLED)


@functools.cache
def calibration_of(samples: int = 6, seed: int = 0, passes: Passes = "one") -> Calibration:
    sampler = sampler_of(seed, samples, passes)
    return calibrate(sampler.value(), seeds=(0,), max_lag=6, sensitivity=1, progress=False)


@functools.cache
def sampler_of(seed: int = 0, samples: int = 6, passes: Passes = "one") -> ToySampler:
    model = Mixture((1.0, 0.5), STEPS, seed=seed, bend=0.2)
    return ToySampler(model, lambda: OneStep(STEPS), passes, samples=samples)


def realised(sampler: ToySampler, schedule: Schedule, seeds: Sequence[int]) -> float:
    assert isinstance(sampler.model, Mixture)
    return error_of(sampler.model, sampler, seeds, schedule)


def promised(schedule: Schedule, estimate: float, **changes: Any) -> Prediction:
    noisy = changes.pop("noisy", False)
    samples = changes.pop("samples", None)
    calibration = replace(calibration_of(), **changes)
    if samples is not None:
        calibration = with_samples(calibration, samples)
    return Promises(calibration, noisy=noisy).of(schedule, estimate)


def width(prediction: Prediction) -> float:
    assert prediction.low is not None
    assert prediction.high is not None
    assert prediction.low < prediction.error < prediction.high
    return prediction.high / prediction.low


@pytest.mark.parametrize("schedule", KINDS, ids=["whole", "reused", "filled"])
@given(st.floats(1e-9, 2.0), st.floats(1.01, 10.0), st.booleans())
def test_a_larger_estimate_is_a_larger_error(
    schedule: Schedule, estimate: float, factor: float, noisy: bool
):
    one = promised(schedule, estimate, noisy=noisy).error
    other = promised(schedule, factor * estimate, noisy=noisy).error
    assert 0.3 * estimate < one < other
    assert one < 2.1 * estimate


@pytest.mark.parametrize("schedule", KINDS, ids=["whole", "reused", "filled"])
def test_fewer_samples_promise_less(schedule: Schedule):
    widths = [width(promised(schedule, 0.01, samples=n)) for n in (1, 2, 4, 16, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.3 * widths[-1]


def test_a_resampled_calibration_promises_less():
    fingerprint = calibration_of().fingerprint.changed(transferred_from=20)
    own, other = promised(WHOLE, 0.01), promised(WHOLE, 0.01, fingerprint=fingerprint)
    assert other.error == own.error
    assert width(other) > 1.1 * width(own)


def test_where_nothing_is_skipped_nothing_is_off():
    found = promised(WHOLE, 0.0)
    assert (found.error, found.low, found.high) == (0.0, 0.0, 0.0)


def test_other_strengths_are_on_the_same_scale():
    promises = Promises(calibration_of(), noisy=False)
    found = promises.of(WHOLE, 0.01, by_guidance={1.5: 0.01, 4.0: 0.05})
    assert found.by_guidance == {1.5: found.error, 4.0: promises.of(WHOLE, 0.05).error}
    assert promises.of(WHOLE, 0.01).by_guidance is None


# ---------------------------------------------------------------------------- how often


def trials() -> Iterator[tuple[ToySampler, Schedule]]:
    """Plan toy denoisers that no constant was fitted to, from two samples and from six."""
    for seed in range(1, 9):
        for samples in (2, 6):
            calibration = calibration_of(samples, seed)
            for compute in (0.5, 0.7):
                yield sampler_of(seed), plan_sites(calibration, compute=compute)
                if samples == 6:
                    yield sampler_of(seed), plan_evaluations(calibration, compute=compute)


def test_plans_of_models_never_seen_keep_their_interval():
    kept: list[bool] = []
    for sampler, schedule in trials():
        promise, error = schedule.prediction, realised(sampler, schedule, (7, 8))
        assert promise is not None
        assert promise.low is not None
        assert promise.high is not None
        kept.append(promise.low <= error <= promise.high)
    assert len(kept) == 48
    assert sum(kept) / len(kept) >= 0.9


def test_fits_keep_their_interval_on_seeds_that_they_did_not_see():
    kept: list[bool] = []
    rows = {"denoiser": (1, 0, 1, 0, 0, 1, 0, 1, 0, 0)}
    for seed in range(1, 7):
        for seeds, samples in (((0,), 6), ((1, 2), 6), ((3, 4, 5), 6)):
            sampler = sampler_of(seed, samples)
            schedule = Schedule(evaluations=STEPS, rows=rows)
            fitted = fit(sampler.value(), schedule, seeds=seeds, progress=False)
            promise = fitted.prediction
            assert promise is not None
            assert promise.low is not None
            assert promise.high is not None
            error = realised(sampler, fitted, (70, 71, 72))
            kept.append(promise.low <= error <= promise.high)
    assert sum(kept) / len(kept) >= 0.9
