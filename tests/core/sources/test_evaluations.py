"""Schedules of whole evaluations: planned without the model, followed by the real one."""

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from kit.helpers import with_samples
from kit.planning import MIXTURE, Mixture, Noisy, OneStep, Passes, ToySampler
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Schedule,
    SmoothCacheWarning,
    cached,
    calibrate,
    fit,
)
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import rounded
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import Simulated, reduced_run
from smoothcache_core.pipelines import announcing_guidance
from smoothcache_core.planning import Limits
from smoothcache_core.schedule import Fingerprint
from smoothcache_core.sources import plan_evaluations
from smoothcache_core.sources.evaluations import EvaluationPlanner, can_skip_guidance
from smoothcache_core.sources.promises import Promises
from torch import Tensor

STEPS = 8
SEEDS = (0, 1)
SAMPLES = 4


@functools.cache
def sampler_of(passes: Passes = "one", samples: int = SAMPLES) -> ToySampler:
    model = Mixture((1.0, 0.5), STEPS)
    return ToySampler(model, lambda: OneStep(STEPS), passes, samples=samples)


@functools.cache
def calibration_of(
    passes: Passes = "one",
    samples: int = SAMPLES,
    *,
    sensitivity: int = 1,
    final: bool = True,
    adapter: PatternAdapter = MIXTURE,
    branches: tuple[str, ...] | None = None,
) -> Calibration:
    sampler = sampler_of(passes, samples)
    taken = sampler.value(
        adapter,
        run=sampler if final else sampler.without_latent,
        branches=sampler.branches if branches is None else branches,
    )
    return calibrate(taken, seeds=SEEDS, max_lag=3, sensitivity=sensitivity, progress=False)


def mask_of(schedule: Schedule) -> Mask:
    return Mask(
        denoiser=tuple(map(bool, schedule.row(DENOISER))),
        guidance=tuple(map(bool, np.minimum(schedule.row(GUIDANCE), schedule.row(DENOISER)))),
    )


def simulated(calibration: Calibration, schedule: Schedule, **how: Any) -> Simulated:
    assert calibration.dynamics is not None
    return reduced_run(calibration.dynamics).simulate(mask_of(schedule), Basis(**how))


# ---------------------------------------------------------------------------- what is planned


@settings(max_examples=25)
@given(st.floats(1 / STEPS, 1.0), st.booleans(), st.integers(1, 3), st.booleans())
def test_the_budget_is_never_exceeded(compute: float, guidance: bool, terms: int, use_input: bool):
    calibration = calibration_of("batched")
    how = {"terms": terms, "use_input": use_input, "use_anchor": terms == 2}
    schedule = plan_evaluations(calibration, compute=compute, guidance=guidance, **how)
    assert schedule.compute_fraction() <= compute + 1e-9
    if compute < 1.0 - 1e-9:
        assert schedule.skips
    assert set(schedule.rows) <= ({"denoiser", "guidance"} if guidance else {"denoiser"})
    run = simulated(calibration, schedule, **how)
    assert schedule.prediction is not None
    promise = Promises(calibration, noisy=False).of(schedule, run.uncertain_error)
    assert schedule.prediction.error == pytest.approx(promise.error, rel=1e-12)
    assert schedule.prediction.high == pytest.approx(promise.high, rel=1e-12)
    assert schedule.prediction.bytes == schedule.predicted_bytes()
    denoiser, difference = schedule.fill(DENOISER), schedule.fill(GUIDANCE)
    assert denoiser.terms == {i: rounded(c) for i, c in run.terms.items()}
    assert denoiser.inputs == {i: rounded([c])[0] for i, c in run.inputs.items()}
    assert difference.terms == {i: rounded(c) for i, c in run.differences.items()}
    assert denoiser.anchors == {i: rounded([c])[0] for i, c in run.anchors.items()}
    assert bool(denoiser.inputs) == bool(run.terms and use_input)
    assert bool(denoiser.anchors) == bool(run.terms and terms == 2)


def test_a_schedule_says_where_it_comes_from():
    calibration = calibration_of("batched")
    schedule = plan_evaluations(calibration, compute=0.55, guidance=True)
    assert schedule.source.name == "whole"
    assert dict(schedule.source.settings) == {
        "compute": 0.55, "guidance": True, "terms": 3, "use_input": True,
        "use_anchor": False,
    }  # fmt: skip
    assert schedule.source.seeds == SEEDS
    assert schedule.fingerprint == calibration.fingerprint
    assert schedule.cost == calibration.cost
    assert Schedule(**schedule.model_dump()) == schedule
    assert schedule.prediction is not None
    assert schedule.prediction.seconds is not None
    assert not schedule.prediction.measured


def test_one_planner_plans_the_same_as_many():
    calibration = calibration_of("batched")
    planner = EvaluationPlanner(calibration, guidance=True)
    for compute in (0.9, 0.3, 0.5):
        assert planner.plan(compute) == plan_evaluations(
            calibration, compute=compute, guidance=True
        )


def test_everything_computed_has_no_fill_and_no_error():
    schedule = plan_evaluations(calibration_of(), compute=1.0)
    assert schedule.rows == {"denoiser": (1,) * STEPS}
    assert schedule.fills == {}
    assert schedule.prediction is not None
    assert schedule.prediction.error < 1e-12


# ---------------------------------------------------------------------------- what really happens


def realised(sampler: ToySampler, schedule: Schedule) -> tuple[float, int]:
    """Return the relative error of the final samples of all seeds, and the calls computed."""
    model = sampler.model
    assert isinstance(model, Mixture)
    plain = torch.stack([sampler(seed) for seed in SEEDS])
    model.forget()
    filled: list[Tensor] = []
    with cached(model, MIXTURE, schedule, branches=sampler.branches):
        filled = [sampler(seed) for seed in SEEDS]
    error = (torch.stack(filled) - plain).norm() / plain.norm()
    return float(error), model.calls


@pytest.mark.parametrize("compute", [0.35, 0.5, 0.8])
@pytest.mark.parametrize(
    ("passes", "guidance"),
    [
        ("one", False),
        ("batched", False),
        ("batched", True),
        ("sequential", False),
        ("sequential", True),
    ],
)
def test_an_affine_denoiser_makes_the_error_that_was_simulated(
    passes: Passes, guidance: bool, compute: float
):
    sampler, calibration = sampler_of(passes), calibration_of(passes)
    schedule = plan_evaluations(calibration, compute=compute, guidance=guidance)
    error, calls = realised(sampler, schedule)
    assert error == pytest.approx(simulated(calibration, schedule).error, rel=1e-3, abs=1e-5)
    mask = mask_of(schedule)
    full = sum(1 for one, both in zip(mask.denoiser, mask.guidance, strict=True) if one and both)
    half = sum(mask.denoiser) - full
    several = 2 if passes == "sequential" else 1
    assert calls == len(SEEDS) * (full * several + half)


# ---------------------------------------------------------------------------- another strength


def planned_at(strength: float, *, announced: bool = True) -> tuple[ToySampler, Schedule]:
    sampler = ToySampler(
        Mixture((1.0, 0.5), STEPS),
        lambda: OneStep(STEPS),
        "batched",
        samples=SAMPLES,
        scale=strength,
    )
    scales = {"guidance_scale": strength} if announced else {}
    with announcing_guidance(**scales):
        calibration = calibrate(sampler.value(MIXTURE), seeds=SEEDS, max_lag=3, progress=False)
    return sampler, plan_evaluations(calibration, compute=0.6, guidance=True)


def test_what_corrects_the_guided_output_is_kept_apart():
    _, schedule = planned_at(1.5)
    _, unknown = planned_at(1.5, announced=False)
    fill = schedule.fill(GUIDANCE)
    assert fill.terms == unknown.fill(GUIDANCE).terms
    assert unknown.fill(GUIDANCE).corrections is None
    assert fill.corrections is not None
    assert fill.corrections.keys() == fill.terms.keys()
    assert all(any(parts) for parts in fill.corrections.values())


def test_a_strength_of_another_meaning_is_not_rescaled():
    sampler = sampler_of("batched")  # its scale is 2.5
    with announcing_guidance(guidance_scale=9.0):
        calibration = calibrate(sampler.value(MIXTURE), seeds=SEEDS, max_lag=3, progress=False)
    schedule = plan_evaluations(calibration, compute=0.6, guidance=True)
    assert schedule.fill(GUIDANCE).terms
    assert schedule.fill(GUIDANCE).corrections is None
    assert schedule.prediction is not None
    assert schedule.prediction.by_guidance is None


def test_used_at_stronger_guidance_a_plan_errs_less_than_with_its_coefficients_unscaled():
    _, schedule = planned_at(1.5)
    stronger, _ = planned_at(6.0)
    before = schedule.changed(fingerprint=Fingerprint(), solver_steps=None)
    with announcing_guidance(guidance_scale=6.0), pytest.warns(SmoothCacheWarning) as told:
        error, _ = realised(stronger, schedule)
    with announcing_guidance(guidance_scale=6.0):
        unscaled, _ = realised(stronger, before)
    assert error < 0.95 * unscaled
    assert schedule.prediction is not None
    expected = schedule.prediction.error_at(6.0)
    assert expected is not None
    assert 0.3 < expected / error < 3.0
    assert any(f"at 6 it is {expected:.2g}" in str(each.message) for each in told)


# ---------------------------------------------------------------------------- limits


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.sets(st.integers(0, STEPS - 1), max_size=2),
    st.none() | st.integers(1, STEPS),
    st.booleans(),
    st.floats(0.0, 0.4),
)
def test_limits_are_kept_down_to_the_least_that_they_allow(
    first: int, pinned: set[int], max_lag: int | None, guidance: bool, more: float
):
    limits = Limits(first=first, pinned=pinned, max_lag=max_lag)
    planner = EvaluationPlanner(calibration_of("batched"), guidance=guidance, limits=limits)
    schedule = planner.plan(min(planner.least + more, 1.0))
    mask = mask_of(schedule)
    for i in {*range(first), *pinned}:
        assert mask.denoiser[i]
        assert mask.guidance[i]
    gaps = "".join("01"[one] for one in mask.denoiser).split("1")
    assert max(map(len, gaps)) <= (max_lag or STEPS)
    if planner.least > 1 / STEPS:
        with pytest.raises(ScheduleError, match=r"cannot be reached: .* the minimum is"):
            planner.plan(planner.least - 1e-3)


def test_without_a_final_latent_the_last_evaluation_is_computed():
    calibration = calibration_of(final=False)
    planner = EvaluationPlanner(calibration)
    assert planner.least == 2 / STEPS
    for compute in (0.25, 0.4, 0.7):
        schedule = planner.plan(compute)
        assert schedule.rows["denoiser"][-1] == 1
        assert schedule.prediction is not None
        assert schedule.prediction.error > 1e-4
    seen = plan_evaluations(calibration_of(), compute=0.4)
    assert seen.prediction is not None


# ---------------------------------------------------------------------------- guidance


@pytest.mark.parametrize(
    ("passes", "adapter", "branches", "possible"),
    [
        ("one", MIXTURE, None, False),
        ("batched", MIXTURE, None, True),
        ("batched", replace(MIXTURE, guidance="uncond-first"), None, False),  # weights say no
        ("batched", replace(MIXTURE, guidance=None), None, True),  # weights say which
        ("sequential", MIXTURE, None, True),
        ("sequential", MIXTURE, ("uncond", "cond"), False),
        ("sequential", MIXTURE, ("negative", "positive"), False),
        ("sequential", MIXTURE, ("positive", "negative"), True),
        ("sequential", MIXTURE, ("one", "other"), False),
    ],
)
def test_an_unconditional_pass_is_skipped_only_where_it_is_known(
    passes: Passes, adapter: PatternAdapter, branches: tuple[str, ...] | None, possible: bool
):
    calibration = calibration_of(passes, adapter=adapter, branches=branches)
    assert can_skip_guidance(calibration) == possible
    if possible:
        assert plan_evaluations(calibration, compute=0.6, guidance=True).skips
    else:
        with pytest.raises(ScheduleError, match="the unconditional pass cannot be skipped"):
            plan_evaluations(calibration, compute=0.6, guidance=True)
    assert not can_skip_guidance(replace(calibration, dynamics=None))


def test_halves_are_a_row_of_their_own_only_where_there_are_any():
    calibration = calibration_of("batched")
    plans = [plan_evaluations(calibration, compute=c, guidance=True) for c in np.arange(3, 16) / 16]
    for schedule in plans:
        mask = mask_of(schedule)
        halves = [d and not g for d, g in zip(mask.denoiser, mask.guidance, strict=True)]
        assert ("guidance" in schedule.rows) == any(halves)
        if any(halves):
            assert schedule.rows["guidance"] == tuple(map(int, mask.guidance))
            assert set(schedule.fill(GUIDANCE).terms) == {i for i, h in enumerate(halves) if h}
    assert any("guidance" in schedule.rows for schedule in plans)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("compute", "how", "message"),
    [
        (0.0, {}, r"compute is a fraction in \(0, 1\], got 0.0"),
        (1.5, {}, r"compute is a fraction in \(0, 1\], got 1.5"),
        (math.nan, {}, r"compute is a fraction in \(0, 1\], got nan"),
        (0.1, {}, "compute 0.1 cannot be reached: .* the minimum is 0.125"),
        (
            0.5,
            {"limits": Limits(first=5)},
            "compute 0.5 cannot be reached: .* the minimum is 0.625",
        ),
        (
            0.3,
            {"limits": Limits(max_lag=1)},
            "compute 0.3 cannot be reached: .* the minimum is 0.5",
        ),
        (0.5, {"limits": Limits(first=9)}, "first is from 1 to 8 evaluations, got 9"),
        (
            0.5,
            {"limits": Limits(pinned=(2, 8))},
            r"pinned evaluations are from 0 to 7, got \[8\]",
        ),
        (0.5, {"terms": 0}, "a fill has 1 to 3 terms, got 0"),
        (0.5, {"terms": 4}, "a fill has 1 to 3 terms, got 4"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(compute: float, how: dict[str, Any], message: str):
    with pytest.raises(ScheduleError, match=message) as told:
        plan_evaluations(calibration_of(), compute=compute, **how)
    assert "\n" not in str(told.value)


def test_a_calibration_without_sensitivities_is_refused():
    for bare in (calibration_of(sensitivity=0), replace(calibration_of(), dynamics=None)):
        with pytest.raises(ScheduleError, match="no sensitivities, so no error can be predicted"):
            plan_evaluations(bare, compute=0.5)
    with pytest.raises(
        ScheduleError, match="no error can be predicted from this calibration: it clips"
    ):
        plan_evaluations(replace(calibration_of(), dynamics=None, remark="it clips"), compute=0.5)


@pytest.mark.parametrize(
    ("how", "fewest"),
    [({}, 6), ({"use_input": False}, 4), ({"terms": 1}, 3), ({"terms": 1, "use_input": False}, 2)],
)
def test_too_few_samples_for_the_coefficients_are_refused(how: dict[str, Any], fewest: int):
    """A latent of 12 entries, and 16 of them for every coefficient."""
    calibration = calibration_of()
    few = with_samples(calibration, fewest - 1)
    with pytest.raises(
        ScheduleError,
        match=rf"of 12 latent entries are too few to fit \d coefficients .*with {fewest} samples",
    ):
        plan_evaluations(few, compute=0.5, **how)
    enough = with_samples(calibration, fewest)
    assert plan_evaluations(enough, compute=0.5, **how).skips
    unknown = calibration.fingerprint.changed(latent_shape=None)
    assert plan_evaluations(replace(few, fingerprint=unknown), compute=0.5).skips


# ---------------------------------------------------------------------------- noise of the solver


@functools.cache
def noisy_calibration() -> tuple[ToySampler, Calibration]:
    model = Mixture((1.0, 0.5), STEPS)
    model.slopes.add_(1.0)  # noise in the latent shows in the output, as with a real denoiser
    sampler = ToySampler(model, lambda: Noisy(STEPS), samples=SAMPLES)
    found = calibrate(sampler.value(), seeds=SEEDS, max_lag=3, sensitivity=1, progress=False)
    return sampler, found


def test_the_anchor_is_taken_where_the_solver_adds_noise():
    _, noisy = noisy_calibration()
    assert plan_evaluations(noisy, compute=0.5).source.settings["use_anchor"] is True
    assert plan_evaluations(noisy, compute=0.5).fill(DENOISER).anchors
    assert plan_evaluations(calibration_of(), compute=0.5).source.settings["use_anchor"] is False


@pytest.mark.parametrize("compute", [0.4, 0.6])
def test_with_noise_a_run_errs_less_by_the_anchor(compute: float):
    sampler, calibration = noisy_calibration()
    errors = {}
    for anchor in (False, True):
        schedule = plan_evaluations(calibration, compute=compute, use_anchor=anchor)
        errors[anchor] = error_of_run(sampler, schedule)
        run = simulated(calibration, schedule, use_anchor=anchor)
        assert errors[anchor] == pytest.approx(run.error, rel=0.2)
    assert errors[True] < 0.5 * errors[False]


def error_of_run(sampler: ToySampler, schedule: Schedule) -> float:
    assert isinstance(sampler.model, Mixture)
    plain = torch.cat([sampler(seed) for seed in SEEDS])
    with cached(sampler.model, MIXTURE, schedule):
        found = torch.cat([sampler(seed) for seed in SEEDS])
    return float((found - plain).norm() / plain.norm())


def test_fitting_keeps_the_anchor():
    sampler, calibration = noisy_calibration()
    schedule = plan_evaluations(calibration, compute=0.5)
    again = fit(sampler.value(), schedule, seeds=SEEDS, progress=False)
    assert set(again.fill(DENOISER).anchors) == set(schedule.fill(DENOISER).anchors)
    assert again.prediction is not None
    assert error_of_run(sampler, again) == pytest.approx(again.prediction.error, rel=0.1)
