"""Transfer to another number of evaluations: what is exact, what is estimated, what is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from kit.helpers import anatomy
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    calibrate,
    transfer,
)
from smoothcache_core.calibrating.resampling import Times, resampled_products
from smoothcache_core.calibrating.time_axis import time_of
from smoothcache_core.errors import CalibrationError, ScheduleError
from smoothcache_core.numerics.interpolation import (
    clamped_linear,
    linear_basis,
    roughness,
    spline_basis,
)
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sources import (
    interval,
    plan_evaluations,
    plan_sites,
    smooth,
    smooth_to_compute,
)
from torch import Tensor, nn

Array = NDArray[np.float64]
SHAPE = (3, 8, 8)
SAMPLER = {"adapter", "branches", "samples", "scheduler", "solver"}
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # of diffusers with NumPy 2
)
ADAPTER = PatternAdapter(
    name="curve", patterns=(SitePattern("site", "site"),), guidance="cond-first"
)


class Curve(nn.Module):
    """A denoiser of one site, which passes on a function of the timestep.

    Attributes:
        curve: The function: (SHAPE) of a timestep.
        pull: What is added of the latent.
        calls: Calls so far.
    """

    def __init__(self, curve: Callable[[float], Tensor], pull: float = 0.0) -> None:
        super().__init__()
        self.site = nn.Linear(SHAPE[-1], SHAPE[-1], bias=False)
        nn.init.eye_(self.site.weight)
        self.curve, self.pull = curve, pull
        self.calls = 0

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        self.calls += 1
        rows = 1.0 + 0.3 * torch.arange(float(len(hidden_states))).reshape(-1, 1, 1, 1)
        curve = self.curve(float(timestep))
        return self.site(rows * curve + self.pull * hidden_states.tanh())


def polynomial(degree: int) -> Callable[[float], Tensor]:
    """Return a random polynomial of the timestep."""
    generator = torch.Generator().manual_seed(degree)
    terms = [torch.randn(SHAPE, generator=generator) for _ in range(degree + 1)]
    return lambda t: sum((term * t**k for k, term in enumerate(terms)), torch.zeros(SHAPE))


def wave(t: float) -> Tensor:
    """Return something smooth that is no polynomial."""
    phases = torch.linspace(0.0, 6.0, int(np.prod(SHAPE))).reshape(SHAPE)
    return torch.sin(3.0 * t + phases) + 0.5


def jitter(t: float) -> Tensor:
    """Return noise that is another for every timestep."""
    generator = torch.Generator().manual_seed(round(1e6 * t))
    return torch.randn(SHAPE, generator=generator)


def euler(
    model: Curve, steps: int, *, span: tuple[float, float] = (1.0, 0.0), guidance: float | None = 2
) -> Callable[[int], Tensor]:
    """Return a sampler that takes `steps` even steps, and batched guidance if there is any."""
    times = np.linspace(*span, steps + 1)

    def run(seed: int) -> Tensor:
        latent = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
        for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            if guidance is None:
                output = model(latent, now)
            else:
                cond, uncond = model(torch.cat((latent, latent)), now).chunk(2)
                output = uncond + guidance * (cond - uncond)
            latent = latent + (then - now) * output
        return latent

    return run


def solver(model: Curve, scheduler: Any, steps: int) -> Callable[[int], Tensor]:
    """Return a sampler by a scheduler of diffusers."""

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        scheduler.set_timesteps(steps)
        latent = torch.randn(1, *SHAPE, generator=generator) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            inputs = scheduler.scale_model_input(latent, timestep)
            latent = scheduler.step(model(inputs, timestep / 1000), timestep, latent)[0]
        return latent

    return run


def calibrated(model: Curve, sample: Callable[[int], Any], **settings: Any) -> Calibration:
    of_sampler = {key: settings.pop(key) for key in SAMPLER & settings.keys()}
    settings = {"seeds": [0], "max_lag": 6, "progress": False} | settings
    return calibrate(taken(model, sample, **of_sampler), **settings)


def taken(model: Curve, sample: Callable[[int], Any], **settings: Any) -> Sampler:
    """Return what the library takes of a sampler."""
    return Sampler(**{"model": model, "adapter": ADAPTER, "run": sample, **settings})


def gram(calibration: Calibration) -> Array:
    """Return the products of the outputs, (parts E, parts E)."""
    assert calibration.dynamics is not None
    count = calibration.evaluations
    whole_gram = joined(calibration.dynamics.gram) / calibration.dynamics.samples
    return whole_gram[count + 1 :, count + 1 :]


def products(calibration: Calibration) -> Array:
    assert calibration.products is not None
    return joined(calibration.products) / calibration.samples


# ---------------------------------------------------------------------------- what is exact


def test_transfer_to_the_same_evaluations_changes_nothing():
    model = Curve(lambda t: wave(t) + 0.05 * jitter(t), pull=-0.3)
    old = calibrated(model, euler(model, 12), seeds=[0, 1])
    new = transfer(old, taken(model, euler(model, 12)))
    assert old.dynamics is not None
    assert new.dynamics is not None
    assert old.influence is not None
    assert new.influence is not None
    assert new.max_lag == old.max_lag
    np.testing.assert_allclose(gram(new), gram(old), rtol=1e-9)
    np.testing.assert_allclose(products(new), products(old), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(new.totals, old.totals, rtol=1e-6)
    np.testing.assert_allclose(new.squares, old.squares, rtol=1e-6)
    np.testing.assert_allclose(new.dynamics.gain()[2:], old.dynamics.gain()[2:], rtol=1e-9)
    np.testing.assert_allclose(
        new.dynamics.r_squared()[2:], old.dynamics.r_squared()[2:], rtol=1e-9
    )
    np.testing.assert_allclose(
        new.dynamics.final_sensitivity(), old.dynamics.final_sensitivity(), rtol=1e-3
    )
    sites = old.sites
    np.testing.assert_allclose(new.influence.values(sites), old.influence.values(sites), rtol=1e-9)
    plans = [plan_evaluations(one, compute=0.5) for one in (old, new)]
    assert plans[0].rows == plans[1].rows
    assert (new.cost, new.seeds, new.samples) == (old.cost, old.seeds, old.samples)


@pytest.mark.parametrize("steps", [7, 9, 16])
def test_polynomials_of_time_are_resampled_exactly(steps: int):
    cubic, line = Curve(polynomial(3)), Curve(polynomial(1))
    new, direct = both(cubic, 10, steps)
    np.testing.assert_allclose(gram(new), gram(direct), rtol=1e-4, atol=1e-5)
    new, direct = both(line, 10, steps)
    lags = min(new.max_lag, direct.max_lag) + 1
    assert lags > 2
    expected = products(direct)[:, :, :lags]
    np.testing.assert_allclose(products(new)[:, :, :lags], expected, rtol=1e-4, atol=1e-5)


def both(model: Curve, old: int, new: int) -> tuple[Calibration, Calibration]:
    """Return a calibration transferred from `old` steps to `new`, and one of `new` steps.

    The spans are such that the new timesteps are within the old ones.
    """
    start = calibrated(model, euler(model, old, span=(1.1, -0.2)))
    sample = euler(model, new)
    return transfer(start, taken(model, sample)), calibrated(model, sample)


@pytest.mark.parametrize("steps", [5, 9, 16])
def test_the_solver_is_measured_at_the_new_steps(steps: int):
    model = Curve(wave)
    new, direct = both(model, 10, steps)
    assert new.dynamics is not None
    assert direct.dynamics is not None
    np.testing.assert_allclose(
        new.dynamics.response.matrix, direct.dynamics.response.matrix, atol=1e-4
    )
    np.testing.assert_allclose(
        new.dynamics.response.weights, np.broadcast_to([2.0, -1.0], (steps, 2)), atol=1e-3
    )


def test_a_multistep_solver_with_a_log_snr_is_measured_too():
    model, scheduler = Curve(wave), DPMSolverMultistepScheduler()
    old = calibrated(model, solver(model, scheduler, 20), scheduler=scheduler)
    direct = calibrated(model, solver(model, scheduler, 14), scheduler=scheduler)
    sample = solver(model, scheduler, 14)
    new = transfer(old, taken(model, sample, scheduler=scheduler))
    assert new.dynamics is not None
    assert direct.dynamics is not None
    matrix = direct.dynamics.response.matrix
    np.testing.assert_allclose(
        new.dynamics.response.matrix, matrix, atol=1e-3 * np.abs(matrix).max()
    )
    np.testing.assert_allclose(gram(new), gram(direct), rtol=0.02, atol=0.02)
    assert new.fingerprint.timesteps == direct.fingerprint.timesteps


def test_the_model_is_not_called_and_is_left_as_it_was():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    before, calls = anatomy(model), model.calls
    transfer(old, taken(model, euler(model, 8)))
    assert model.calls == calls
    model.calls = 0
    after = anatomy(model)
    assert {k: v for k, v in after[""][1].items() if k != "calls"} == {
        k: v for k, v in before[""][1].items() if k != "calls"
    }


@pytest.mark.parametrize("steps", [8, 20])
def test_effects_go_with_the_size_of_the_steps(steps: int):
    model = Curve(wave)
    old = calibrated(model, euler(model, 12))
    new = transfer(old, taken(model, euler(model, steps)))
    assert old.dynamics is not None
    assert new.dynamics is not None
    expected = np.full(steps, old.dynamics.final_sensitivity().mean() * 12 / steps)
    np.testing.assert_allclose(new.dynamics.final_sensitivity(), expected, rtol=1e-3)


# ---------------------------------------------------------------------------- what is estimated


@pytest.mark.parametrize("steps", [10, 16, 30])
def test_plans_of_a_transferred_calibration_are_as_good(steps: int):
    model = Curve(lambda t: wave(t) + 0.01 * jitter(t), pull=-0.3)
    old = calibrated(model, euler(model, 20))
    sample = euler(model, steps, span=(1.0, 0.0))
    direct = calibrated(model, sample)
    new = transfer(old, taken(model, sample))
    for compute in (0.6, 0.4):
        ours, best = (plan_evaluations(one, compute=compute).prediction for one in (new, direct))
        assert ours is not None
        assert best is not None
        assert ours.error == pytest.approx(best.error, rel=0.35)


def test_what_is_not_smooth_stays_unforeseeable_between_the_calibrated_timesteps():
    model = Curve(jitter)
    old = calibrated(model, euler(model, 20, guidance=None))
    new = transfer(old, taken(model, euler(model, 33, guidance=None)))
    power = float(np.prod(SHAPE)) ** -0.5  # of an inner product of two unrelated outputs
    for outputs in (gram(new), np.diag(products(new)[0, :, 0])):
        assert np.diagonal(outputs) == pytest.approx(1.0, abs=6 * power)
    change = smooth_curves(new)[0]
    assert np.median(change) == pytest.approx(2.0**0.5, rel=0.2)


def smooth_curves(calibration: Calibration) -> Array:
    """Return relative L2 changes from one evaluation to the next of the only site, (1, E - 1)."""
    own, both_ = products(calibration)[:, :, 0], products(calibration)[:, 1:, 1]
    return np.sqrt((own[:, 1:] + own[:, :-1] - 2 * both_) / own[:, 1:])


def test_errors_of_sites_follow_the_products():
    model = Curve(wave)
    new, direct = both(model, 20, 14)
    lags = new.max_lag
    assert lags == 4
    inside = np.isfinite(new.mean())
    assert np.array_equal(inside, np.isfinite(direct.mean()[:, :, :lags]))
    np.testing.assert_allclose(
        new.mean()[inside], direct.mean()[:, :, :lags][inside], rtol=0.1, atol=0.003
    )


def test_infinite_errors_stay_infinite():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    old.totals[:, :, 0, 3:6] = np.inf
    old.squares[:, :, 0, 3:6] = np.inf
    new = transfer(old, taken(model, euler(model, 10)))
    np.testing.assert_array_equal(np.isinf(new.totals), np.isinf(old.totals))


def test_lags_are_those_that_span_no_more_than_was_calibrated():
    model = Curve(wave)
    old = calibrated(model, euler(model, 12), max_lag=4)
    assert transfer(old, taken(model, euler(model, 6))).max_lag == 2
    assert transfer(old, taken(model, euler(model, 12))).max_lag == 4
    assert transfer(old, taken(model, euler(model, 24))).max_lag == 7


def test_without_lags_whole_evaluations_can_be_planned_and_sites_cannot():
    model = Curve(wave)
    old = calibrated(model, euler(model, 16), max_lag=1)
    new = transfer(old, taken(model, euler(model, 6)))
    assert new.max_lag == 0
    assert 0 in plan_evaluations(new, compute=0.5).rows["denoiser"]
    told = "1 lags of the 16 evaluations that were calibrated do not span one of the 6"
    for plan in (
        lambda: smooth(new, alpha=0.1),
        lambda: smooth_to_compute(new, compute=0.5),
        lambda: plan_sites(new, compute=0.5),
    ):
        with pytest.raises(ScheduleError, match=told):
            plan()


# ---------------------------------------------------------------------------- provenance


def test_schedules_tell_that_their_calibration_was_transferred(tmp_path: Path):
    model = Curve(wave)
    old = calibrated(model, euler(model, 12))
    new = transfer(old, taken(model, euler(model, 9)))
    assert old.fingerprint.transferred_from is None
    schedules = [
        plan_evaluations(new, compute=0.5),
        smooth(new, alpha=0.5),
        plan_sites(new, compute=0.7),
    ]
    schedules.append(interval(2, evaluations=9, kinds=new.kinds, fingerprint=new.fingerprint))
    for schedule in schedules:
        saved = Schedule.load(schedule.save(tmp_path / "schedule.json"))
        assert saved.fingerprint.transferred_from == 12
        assert saved.evaluations == saved.fingerprint.evaluations == 9
    assert Calibration.load(new.save(tmp_path / "calibration.safetensors")) == new


def test_what_was_transferred_merges_with_its_like_only():
    model = Curve(wave)
    parts = [calibrated(model, euler(model, 12), seeds=[seed]) for seed in (0, 1)]
    moved = [transfer(part, taken(model, euler(model, 9))) for part in parts]
    merged = Calibration.merge(*moved)
    at_once = transfer(Calibration.merge(*parts), taken(model, euler(model, 9)))
    assert merged.samples == 2
    np.testing.assert_allclose(gram(merged), gram(at_once), rtol=1e-6)
    measured = calibrated(model, euler(model, 9), seeds=[5])
    with pytest.raises(CalibrationError, match="transferred_from is None instead of 12"):
        Calibration.merge(moved[0], measured)


# ---------------------------------------------------------------------------- forms of outputs


class _Given(NamedTuple):
    sample: Tensor


class Dressed(Curve):
    """Gives its output as diffusers' models do, with a variance."""

    def forward(self, hidden_states: Tensor, timestep: Any, return_dict: bool = True) -> Any:
        del return_dict
        output = super().forward(hidden_states, timestep)
        return _Given(torch.cat((output, output), dim=1))


class Listed(Curve):
    """Takes and gives a list of samples."""

    def forward(self, hidden_states: list[Tensor], timestep: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return list(super().forward(torch.stack(hidden_states), timestep))


class Bare(Curve):
    """Gives a tensor."""


@pytest.mark.parametrize("form", [Dressed, Listed, Bare])
def test_answers_have_the_form_of_outputs(form: type[Curve]):
    def run(steps: int) -> Callable[[int], Tensor]:
        times = np.linspace(1.0, 0.1, steps)

        def sample(seed: int) -> Tensor:
            latent = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
            for time in times.tolist():
                output: Any = model(list(latent) if form is Listed else latent, time)
                if form is Listed:
                    output = torch.stack(output)
                if form is Dressed:
                    assert output.sample is output[0]
                    output = output.sample.chunk(2, dim=1)[0]
                latent = latent - output / steps
            return latent

        return sample

    model = form(wave)
    old = calibrated(model, run(8), samples=2)
    assert not old.remark
    new = transfer(old, taken(model, run(6), samples=2))
    assert new.dynamics is not None
    expected = np.tril(np.full((6, 6), -1 / 6))
    np.testing.assert_allclose(new.dynamics.response.matrix, expected, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 9, 20])
def test_all_lags_may_have_been_measured(steps: int, tmp_path: Path):
    model = Curve(wave)
    known = calibrated(model, euler(model, 10), max_lag=9)
    found = transfer(known, taken(model, euler(model, steps)))
    assert found.evaluations == steps
    past_the_end = np.add.outer(np.arange(found.max_lag) + 1, np.arange(steps)) >= steps
    np.testing.assert_array_equal(np.isnan(found.mean())[0, 0], past_the_end)
    assert Calibration.load(found.save(tmp_path / "transferred.safetensors")) == found


# ---------------------------------------------------------------------------- what is refused


def refused(
    match: str,
    *,
    steps: int = 8,
    old: Calibration | None = None,
    model: Curve | None = None,
    sample: Callable[[int], Any] | None = None,
    **settings: Any,
) -> None:
    model = model or Curve(wave)
    old = old or calibrated(model, euler(model, 10))
    with pytest.raises(CalibrationError, match=match) as caught:
        transfer(old, taken(model, sample or euler(model, steps), **settings))
    assert "\n" not in str(caught.value)


def test_too_many_evaluations_are_refused():
    refused("from 4 to 2 times as many; calibrated are 10, the new run has 21", steps=21)


def test_too_few_evaluations_are_refused():
    refused("calibrated are 10, the new run has 3", steps=3)
    model = Curve(wave)
    refused("calibrated are 3, the new run has 4", steps=4, old=calibrated(model, euler(model, 3)))


@pytest.mark.parametrize(
    ("span", "match"),
    [
        ((1.1, 0.0), "begins at timestep 1.1, the calibrated one at 1: 1 calibrated steps beyond"),
        ((1.0, -0.15), "ends at timestep"),
    ],
)
def test_timesteps_beyond_the_calibrated_ones_are_refused(span: tuple[float, float], match: str):
    model = Curve(wave)
    refused(match, model=model, sample=euler(model, 10, span=span))


def test_half_a_step_beyond_the_calibrated_ones_is_allowed():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    assert transfer(old, taken(model, euler(model, 20))).evaluations == 20


def test_other_solvers_are_refused():
    model, first = Curve(wave), DDIMScheduler(clip_sample=False)
    old = calibrated(model, solver(model, first, 10), scheduler=first)
    others = {
        "the solver is 'EulerDiscreteScheduler' instead of 'DDIM": EulerDiscreteScheduler(),
        "prediction_type is 'v_prediction' instead of 'epsilon'": DDIMScheduler(
            prediction_type="v_prediction", clip_sample=False
        ),
    }
    for match, other in others.items():
        sample = solver(model, other, 8)
        refused(match, old=old, model=model, sample=sample, scheduler=other)


def test_a_solver_without_a_scheduler_is_known_by_the_name_given():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10), solver="euler(end=0)")
    new = transfer(old, taken(model, euler(model, 8), solver="euler(end=0.1)"))
    assert new.fingerprint.solver == "euler(end=0.1)"
    assert transfer(old, taken(model, euler(model, 8))).fingerprint.solver == "euler(end=0)"
    with pytest.raises(CalibrationError, match="the solver is 'heun' instead of 'euler'"):
        transfer(old, taken(model, euler(model, 8), solver="heun"))


def test_another_spacing_of_the_same_solver_is_not_refused():
    model, first = Curve(wave), DDIMScheduler(timestep_spacing="linspace", clip_sample=False)
    old = calibrated(model, solver(model, first, 10), scheduler=first)
    other = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    new = transfer(old, taken(model, solver(model, other, 8), scheduler=other))
    assert "trailing" in (new.fingerprint.solver or "")


def test_solvers_of_several_evaluations_per_step_are_refused():
    model, scheduler = Curve(wave), HeunDiscreteScheduler()
    sample = solver(model, scheduler, 6)
    old = calibrated(model, sample, scheduler=scheduler)
    refused("must all go one way", old=old, model=model, sample=sample, scheduler=scheduler)


def test_calibrations_that_lack_something_are_refused():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    unknown = old.fingerprint.changed(timesteps=None)
    moved = transfer(old, taken(model, euler(model, 9)))
    refused("timesteps of this calibration are not known", old=replace(old, fingerprint=unknown))
    refused("itself transferred, from 10 evaluations", old=moved)
    refused("nothing of whole runs .* `sensitivity=2`", old=replace(old, dynamics=None))
    refused("nothing of whole runs .* clips", old=replace(old, dynamics=None, remark="it clips"))


def test_sensitivities_that_were_not_measured_are_not_made_up():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    assert old.dynamics is not None
    none = replace(
        old.dynamics,
        **dict.fromkeys(("sum_dx2", "effects"), np.zeros_like(old.dynamics.effects)),
        **dict.fromkeys(("sum_dxdy", "sum_dy2"), np.zeros_like(old.dynamics.sum_dy2)),
        effect_counts=np.zeros_like(old.dynamics.effect_counts),
    )
    new = transfer(replace(old, dynamics=none), taken(model, euler(model, 9)))
    assert new.dynamics is not None
    assert not new.dynamics.measured


def test_other_models_and_runs_are_refused():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    refused("model_class is 'Bare' instead of 'Curve'", old=old, model=Bare(wave))
    refused(
        "1 conditioning passes, the calibrated one 2",
        old=old, model=model, sample=euler(model, 9, guidance=None),
    )  # fmt: skip
    refused("`run` never called", old=old, model=model, sample=lambda seed: None)
    small = replace(old, fingerprint=old.fingerprint.changed(latent_shape=(3, 4, 4)))
    refused(r"latent has shape \(3, 8, 8\), the calibrated one \(3, 4, 4\)", old=small, model=model)


def test_a_sampler_that_cannot_use_the_answers_is_told():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))

    def sample(seed: int) -> Tensor:
        del seed
        return model(torch.zeros(1, *SHAPE), 1.0).picture

    refused(
        "answered by tensors like its latent: AttributeError", old=old, model=model, sample=sample
    )


def test_a_call_without_a_timestep_is_refused():
    model = Curve(lambda t: wave(0.5))
    old = calibrated(model, euler(model, 10))

    class Number:
        def __float__(self) -> float:
            return 0.5

    def sample(seed: int) -> Tensor:
        latent = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
        for _ in range(9):
            cond, uncond = model(torch.cat((latent, latent)), Number()).chunk(2)
            latent = latent - (2 * cond - uncond) / 9
        return latent

    refused("without timesteps", old=old, model=model, sample=sample)


def test_a_compiled_model_is_refused():
    model = Curve(wave)
    old = calibrated(model, euler(model, 10))
    model.compile(backend="eager")
    refused("compiled; transfer first", old=old, model=model)


# ---------------------------------------------------------------------------- interpolation


KNOTS = np.array([-1.0, -0.2, 0.0, 0.9, 1.4, 2.5, 2.6])


def test_the_spline_is_the_usual_one():
    values = np.random.default_rng(0).normal(size=len(KNOTS))
    places = np.linspace(-1.3, 2.7, 41)
    expected = CubicSpline(KNOTS, values, bc_type="not-a-knot")(places)
    np.testing.assert_allclose(spline_basis(KNOTS, places) @ values, expected, atol=1e-9)
    np.testing.assert_array_equal(spline_basis(KNOTS, KNOTS), np.eye(len(KNOTS)))


def test_linear_weights_are_of_two_neighbours():
    basis = linear_basis(KNOTS, np.array([-1.4, 0.45, 2.6]))
    assert basis[0, :2] == pytest.approx([1.5, -0.5])
    assert basis[1, 2:4] == pytest.approx([0.5, 0.5])
    assert basis.sum(axis=1) == pytest.approx(1.0)
    assert np.count_nonzero(basis[2]) == 1


def test_held_values_go_no_farther_than_the_ends():
    values = np.array([KNOTS, 2 * KNOTS])
    found = clamped_linear(KNOTS, values, np.array([-3.0, 1.15, 9.0]))
    np.testing.assert_allclose(found, [[-1.0, 1.15, 2.6], [-2.0, 2.3, 5.2]])


def test_roughness_is_what_polynomials_do_not_have():
    generator = np.random.default_rng(0)
    rough = 0.1 * generator.normal(size=(len(KNOTS), 40000))
    smooth_ = generator.normal(size=(3, 40000))
    vectors = np.stack([KNOTS**k for k in range(3)]).T @ smooth_
    together = (vectors + rough) @ (vectors + rough).T / 40000
    alone = vectors @ vectors.T / 40000
    found = roughness(together[..., None, None], KNOTS, 6)[:, 0, 0]
    assert found == pytest.approx(0.01, rel=0.05)
    assert roughness(alone[..., None, None], KNOTS, 6) == pytest.approx(0.0, abs=1e-12)
    assert not roughness(together[..., None, None], KNOTS, 1).any()


def test_a_jump_is_roughness_only_where_it_is():
    knots, jump = np.arange(13.0), np.repeat([0.0, 1.0], [6, 7])
    found = roughness(np.outer(jump, jump)[..., None, None], knots, 6)[:, 0, 0]
    assert found[[1, 2, 3, 9, 10, 11]] == pytest.approx(0.0, abs=1e-12)
    assert found[5] > 0.01


def test_products_between_the_knots_are_those_of_smooth_vectors_with_the_same_roughness():
    generator = np.random.default_rng(0)
    knots, places, entries = np.linspace(0.0, 1.0, 13), np.linspace(0.1, 0.9, 14), 20000
    lines = generator.normal(size=(2, entries))

    def at(times: Array) -> Array:
        rough = 0.1 * generator.normal(size=(len(times), entries))
        return np.stack((np.ones_like(times), times), axis=1) @ lines + rough

    resampled = resampled_products(band(at(knots))[None], Times(old=knots, new=places))[0]
    expected = band(at(places))[:, : resampled.shape[1]]
    np.testing.assert_allclose(resampled, expected, atol=0.01)
    change = resampled[1:, 0] + resampled[:-1, 0] - 2 * resampled[1:, 1]
    direct = expected[1:, 0] + expected[:-1, 0] - 2 * expected[1:, 1]
    np.testing.assert_allclose(change, direct, rtol=0.1)


def band(vectors: Array) -> Array:
    """Return products of vectors (E, n) as [i, k]: of i and i - k."""
    full = vectors @ vectors.T / vectors.shape[1]
    count = len(full)
    return np.array(
        [[full[i, i - k] if i >= k else 0.0 for k in range(count)] for i in range(count)]
    )


# ---------------------------------------------------------------------------- time


def test_time_is_the_log_snr_where_the_scheduler_tells_it():
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    steps = scheduler.timesteps.double().numpy()
    alphas = scheduler.alphas_cumprod.double().numpy()[steps.astype(int)]
    expected = np.log(alphas / (1 - alphas))
    np.testing.assert_allclose(time_of(scheduler, steps)(steps), expected, rtol=1e-6)
    np.testing.assert_allclose(time_of(scheduler, steps / 1000)(steps / 1000), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
)
def test_time_of_a_flow_is_finite_at_its_ends(scheduler: Any):
    scheduler.set_timesteps(10)
    steps = scheduler.timesteps.double().numpy()
    sigmas = scheduler.sigmas.double().numpy()[:-1]
    time = time_of(scheduler, 1.0 - steps / 1000)(1.0 - steps / 1000)
    inner = slice(2, -2)
    expected = np.log((1 - sigmas[inner]) / sigmas[inner])
    np.testing.assert_allclose(time[inner], expected, atol=0.03)
    assert (np.diff(time) > 0).all()
    assert np.diff(time).max() < 5.0


@pytest.mark.parametrize("scheduler", [None, EulerDiscreteScheduler(), object()])
def test_time_is_the_timestep_where_nothing_is_known(scheduler: Any):
    steps: Sequence[float] = [0.1, 0.3, 0.7, 0.9]
    values = np.array(steps)
    np.testing.assert_array_equal(time_of(scheduler, values)(values), values)
