"""Every sampler of stable-audio-tools, cached, calibrated, planned for and fitted."""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import pytest
import torch
from kit.audio_models import PATCH, stable_audio_tools_model
from kit.hook_reference import assert_restored, counted, hooked, snapshot
from smoothcache_audio import (
    adapter_for,
    cached_pipeline,
    prompt_sampler,
    sampler_of,
)
from smoothcache_audio.stable_audio_tools import FLOW_SOLVERS, V_SOLVERS, quiet
from smoothcache_core import Schedule, SmoothCacheWarning, cached, calibrate, fit, plan
from smoothcache_core.errors import PipelineError, SamplerError, ScheduleError
from smoothcache_core.sampling.finer_run import finer_run
from smoothcache_core.sampling.recording import record
from smoothcache_core.schedule import Fill
from smoothcache_core.sources import interval
from torch import Tensor

STEPS = 4
OBJECTIVES = {**dict.fromkeys(V_SOLVERS, "v"), **dict.fromkeys(FLOW_SOLVERS, "rectified_flow")}
KINDS = ("self_attn", "cross_attn", "ff")

every_solver = pytest.mark.parametrize("solver", OBJECTIVES)


@cache
def _model(objective: str, *, decoding: bool) -> Any:
    return stable_audio_tools_model(objective=objective, decoding=decoding)


def model_for(solver: str, *, decoding: bool = False) -> Any:
    return _model(OBJECTIVES[solver], decoding=decoding)


def sampler_for(solver: str, **settings: Any) -> Any:
    options = {"conditions": range(10), "steps": STEPS, "guidance": 3.0, "samples": 2}
    return prompt_sampler(model_for(solver), solver=solver, **{**options, **settings})


def row_of(evaluations: int) -> tuple[int, ...]:
    """Return a row that computes the first evaluation and every third after it."""
    return tuple(int(evaluation % 3 == 0) for evaluation in range(evaluations))


def schedule_for(solver: str) -> Schedule:
    evaluations = sampler_for(solver).evaluations
    return Schedule(evaluations=evaluations, rows=dict.fromkeys(KINDS, row_of(evaluations)))


# ---------------------------------------------------------------------------- exactness


@every_solver
def test_a_schedule_is_followed_exactly(solver: str):
    sampler, schedule = sampler_for(solver), schedule_for(solver)
    model, row = sampler.model, row_of(sampler.evaluations)
    sites = adapter_for(model).sites(model)
    with counted(model, sites) as plain_calls:
        plain = sampler(1)
    with hooked(model, sites, row):
        expected = sampler(1)
    before = snapshot(sampler.pipe)
    with counted(model, sites) as calls, cached_pipeline(sampler.pipe, schedule) as stats:
        outputs, again = sampler(1), sampler(1)
    assert_restored(sampler.pipe, before)
    assert set(plain_calls.values()) == {sampler.evaluations}
    assert set(calls.values()) == {2 * sum(row)}
    assert stats.computed == {site.path: 2 * sum(row) for site in sites}
    assert stats.runs == 2
    assert stats.recomputed == 0
    assert torch.equal(outputs, expected)
    assert torch.equal(again, outputs)
    assert not torch.equal(outputs, plain)
    assert torch.equal(sampler(1), plain)


@every_solver
def test_computing_everything_is_bit_identical(solver: str):
    sampler = sampler_for(solver)
    everything = interval(1, evaluations=sampler.evaluations, kinds=KINDS)
    with (
        pytest.warns(SmoothCacheWarning, match="computes everything"),
        cached_pipeline(sampler.pipe, everything),
    ):
        outputs = sampler(1)
    assert torch.equal(outputs, sampler(1))


@every_solver
def test_filled_evaluations_are_combined_from_guided_outputs(solver: str):
    sampler = sampler_for(solver)
    row = row_of(sampler.evaluations)
    filled = [evaluation for evaluation, computed in enumerate(row) if not computed]
    fill = Fill(terms=dict.fromkeys(filled, (0.9,)), inputs=dict.fromkeys(filled, 0.1))
    schedule = Schedule(evaluations=len(row), rows={"denoiser": row}, fills={"denoiser": fill})
    model, kept = sampler.model, torch.zeros(0)
    seen: list[int] = []

    def by_hand(module: Any, args: tuple[Any, ...], kwargs: Any, output: Any) -> Any:
        nonlocal kept
        guided, *rest = output if isinstance(output, tuple) else (output,)
        if row[len(seen)]:
            kept = guided.clone()
        else:
            guided = (0.9 * kept + 0.1 * args[0].to(kept)).to(kept)
        seen.append(len(guided))
        return (guided, *rest) if rest else guided

    handle = model.register_forward_hook(by_hand, with_kwargs=True)
    expected = sampler(1)
    handle.remove()
    with cached_pipeline(sampler.pipe, schedule) as stats:
        outputs = sampler(1)
    assert seen == [2] * len(row)
    assert stats.reused == {"denoiser": len(filled)}
    if solver != "v-ddim-cfgpp":  # it takes the unconditional output too, which is filled likewise
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)


@every_solver
def test_runs_of_other_lengths_and_batches_do_not_leak(solver: str):
    sampler, schedule = sampler_for(solver), schedule_for(solver)
    longer = sampler_for(solver, seconds=24 * PATCH / sampler.sample_rate)
    single, unguided = sampler_for(solver, samples=1), sampler_for(solver, guidance=1.0)
    others = (longer, single, unguided)

    def alone(one: Any) -> Tensor:
        with cached_pipeline(sampler.pipe, schedule):
            return one(2)

    expected = [alone(one) for one in (*others, sampler)]
    with cached_pipeline(sampler.pipe, schedule) as stats:
        outputs = [one(2) for one in (*others, sampler)]
    assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))
    assert stats.runs == 4
    assert stats.recomputed == 0
    assert outputs[0].shape[-1] == 24
    assert outputs[1].shape[0] == 1


@every_solver
def test_another_number_of_steps_is_refused_and_forgotten(solver: str):
    sampler, schedule = sampler_for(solver), schedule_for(solver)
    more = sampler_for(solver, steps=STEPS + 2)
    with cached_pipeline(sampler.pipe, schedule):
        expected = sampler(1)
        with pytest.raises(ScheduleError, match="the sampler makes evaluation number"):
            more(1)
        assert torch.equal(sampler(1), expected)


class Interrupted(Exception):
    pass


@every_solver
def test_an_interrupted_run_leaves_nothing(solver: str):
    sampler, schedule = sampler_for(solver), schedule_for(solver)
    before = snapshot(sampler.pipe)
    model = sampler.model
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted

    with cached_pipeline(sampler.pipe, schedule):
        expected = sampler(1)
        site = model.get_submodule("transformer.project_in")
        handle = site.register_forward_pre_hook(fail)
        with pytest.raises(Interrupted):
            sampler(2)
        handle.remove()
        assert torch.equal(sampler(1), expected)
    assert_restored(sampler.pipe, before)


def test_samplers_may_change_from_run_to_run():
    solvers = [solver for solver, evaluations in V_SOLVERS.items() if evaluations == 1]
    schedule = schedule_for(solvers[0])
    model = model_for(solvers[0])
    runs = [partial(sampler_for(solver), 3) for solver in solvers]

    def alone(run: Callable[[], Tensor]) -> Tensor:
        with cached_pipeline(model, schedule):
            return run()

    expected = [alone(run) for run in runs]
    with cached_pipeline(model, schedule) as stats:
        outputs = [run() for run in runs]
    assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))
    assert stats.runs == len(solvers)


# ---------------------------------------------------------------------------- planning


@pytest.mark.slow
@every_solver
def test_calibrated_planned_fitted_and_applied(solver: str):
    per_step = {**V_SOLVERS, **FLOW_SOLVERS}[solver]
    sampler = sampler_for(solver, steps={1: 5, 2: 3, 4: 2}[per_step])
    before = snapshot(sampler.pipe)
    taken = sampler
    calibration = calibrate(taken, seeds=[1], sensitivity=1, max_lag=3, progress=False)
    assert_restored(sampler.pipe, before)
    assert calibration.evaluations == sampler.evaluations
    assert calibration.fingerprint.solver == sampler.solver_name
    assert calibration.fingerprint.guidance == {"cfg_scale": 3.0}
    assert calibration.remark == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)  # few evaluations, and one sample
        sites = plan(calibration, compute=0.7, target="kind")
        whole = plan(calibration, compute=0.7, target="denoiser")
    fitted = fit(taken, whole, seeds=[1], progress=False)
    assert fitted.prediction is not None
    assert fitted.prediction.measured
    plain = sampler(3)
    for schedule in (sites, fitted):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SmoothCacheWarning)
            with cached_pipeline(sampler.pipe, schedule, solver=sampler.solver_name) as stats:
                outputs = sampler(3)
        assert outputs.isfinite().all()
        assert 0 < stats.reuse_fraction < 1
        assert 0 < (outputs - plain).norm() / plain.norm() < 2


# ---------------------------------------------------------------------------- as users call it


def generate(model: Any, **settings: Any) -> Tensor:
    from stable_audio_tools.inference.generation import generate_diffusion_cond

    options: dict[str, Any] = {
        "steps": STEPS,
        "cfg_scale": 3.0,
        "conditioning": [{"digit": 3, "seconds_total": 1.0}],
        "sample_size": model.sample_size,
        "seed": 5,
        "device": "cpu",
        "sampler_type": "dpmpp-2m",
    }
    with quiet(), torch.no_grad():
        return generate_diffusion_cond(model, **{**options, **settings})


def test_generate_is_cached_and_the_sampler_does_the_same():
    solver = "dpmpp-2m"
    model, schedule = model_for(solver, decoding=True), schedule_for(solver)
    sampler = prompt_sampler(
        model,
        solver=solver,
        steps=STEPS,
        guidance=3.0,
        conditions=[{"digit": 3, "seconds_total": 1.0}],
        sigma_min=0.01,
        sigma_max=100.0,
    )
    plain = generate(model)
    assert torch.equal(sampler.decode(sampler(5)), plain.clamp(-1, 1))
    with cached_pipeline(model, schedule) as stats:
        one, other = generate(model), generate(model)
        sampled = sampler.decode(sampler(5))
    assert stats.runs == 3
    assert torch.equal(one, other)
    assert torch.equal(sampled, one.clamp(-1, 1))
    assert not torch.equal(one, plain)


def test_every_generation_is_announced_as_a_run():
    """Where timesteps are on a device, an interrupted run cannot be told from one that goes on."""
    model = model_for("dpmpp-2m")
    before = snapshot(model)
    denoiser, schedule = model.model.model, Schedule(evaluations=4, rows={"ff": (1, 0, 0, 0)})
    conditioning = model.conditioner([{"digit": 1, "seconds_total": 1.0}], "cpu")
    inputs = model.get_conditioning_inputs(conditioning)
    arguments = {
        "cross_attn_cond": inputs["cross_attn_cond"],
        "global_embed": inputs["global_cond"],
    }

    def call(timestep: float) -> None:
        denoiser(torch.ones(1, PATCH, 16), torch.tensor([timestep]), **arguments)

    with torch.no_grad(), cached_pipeline(model, schedule) as stats:
        call(0.9)
        model.get_conditioning_inputs(conditioning)
        with pytest.warns(SmoothCacheWarning, match="a run ended after 1 evaluation,"):
            call(0.8)
        for timestep in (0.7, 0.6, 0.5):
            call(timestep)
    assert stats.runs == 2
    assert_restored(model, before)


@pytest.mark.slow
def test_a_calibration_may_decode():
    model = model_for("dpmpp-2m", decoding=True)
    taken = sampler_of(model, lambda seed: generate(model, seed=seed))
    calibration = calibrate(taken, seeds=[1], sensitivity=1, progress=False)
    assert calibration.dynamics is not None


@pytest.mark.slow
def test_a_guidance_interval_is_calibrated_and_followed():
    model = model_for("dpmpp-2m")
    settings = {"cfg_interval": (0.3, 0.995), "steps": 8, "return_latents": True}
    rows: list[int] = []
    site = model.model.model.get_submodule("transformer.layers.0.ff")
    with ExitStack() as stack:
        hook = site.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        stack.callback(hook.remove)
        plain = generate(model, **settings)
    assert sorted(set(rows)) == [1, 2]
    taken = sampler_of(model, lambda seed: generate(model, seed=seed, **settings))
    calibration = calibrate(taken, seeds=range(1, 5), sensitivity=1, progress=False)
    for target in ("kind", "denoiser"):
        schedule = plan(calibration, compute=0.6, target=target)
        with cached_pipeline(model, schedule) as stats:
            outputs = generate(model, **settings)
        assert stats.reuse_fraction > 0
        assert outputs.isfinite().all()
        assert not torch.equal(outputs, plain)


# ---------------------------------------------------------------------------- the sampler itself


def test_solvers_that_cannot_be_scheduled_are_refused():
    model = model_for("dpmpp-2m")
    with pytest.raises(
        PipelineError, match="'k-dpm-adaptive' chooses the number of evaluations at run time"
    ):
        prompt_sampler(model, conditions=[1], steps=4, solver="k-dpm-adaptive")
    with pytest.raises(PipelineError, match=r"'rk4' does not sample this model.*'v'.*dpmpp-3m-sde"):
        prompt_sampler(model, conditions=[1], steps=4, solver="rk4")
    with pytest.raises(PipelineError, match=r"'k-heun' does not sample this model.*euler"):
        prompt_sampler(model_for("euler"), conditions=[1], steps=4, solver="k-heun")


def test_the_default_solver_suits_the_objective():
    assert (
        prompt_sampler(model_for("v-ddim"), conditions=[1], steps=4).sampler_type == "dpmpp-3m-sde"
    )
    assert prompt_sampler(model_for("rk4"), conditions=[1], steps=4).sampler_type == "euler"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditions": []}, "there is nothing to sample"),
        ({"steps": 0}, "a run has at least 1 step, got steps=0"),
        ({"seconds": 0.0}, "positive number of seconds"),
        ({"conditions": [10]}, "'digit' is a number from 0 to 9, not 10"),
        ({"conditions": ["rain"]}, "'rain' is no condition of this model.*'digit' \\(Int\\)"),
        ({"conditions": [{"seconds_total": 1.0}]}, r"\['digit'\] is missing"),
        ({"sigma_min": 1.0, "sigma_max": 0.5}, "sigma_max down to sigma_min"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_once(settings: dict[str, Any], message: str):
    options: dict[str, Any] = {"conditions": [1], "steps": 4, **settings}
    with pytest.raises((PipelineError, SamplerError), match=message):
        prompt_sampler(model_for("dpmpp-2m"), **options)


def test_sampling_is_silent_and_leaves_the_process_as_it_was(capfd: pytest.CaptureFixture[str]):
    sampler = sampler_for("dpmpp-3m-sde")
    flag = torch.backends.cudnn
    state, before = torch.get_rng_state(), flag.benchmark
    flag.benchmark = True
    try:
        sampler(1)
        assert flag.benchmark
    finally:
        flag.benchmark = before
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_warnings_are_not_held_back(capsys: pytest.CaptureFixture[str]):
    import sys

    with quiet():
        sys.stderr.write("\r 10%|#   | 1/10")
        sys.stderr.write("\n")
        sys.stderr.write("x.py:1: UserWarning: look here\n")
    assert capsys.readouterr().err == "x.py:1: UserWarning: look here\n"


def test_seeds_and_conditions_are_those_of_the_samples():
    sampler = sampler_for("dpmpp-2m")
    assert sampler.conditions_of(3) == [6, 7]
    assert torch.equal(sampler(3), sampler(3))
    assert not torch.equal(sampler(3), sampler(4))
    with pytest.raises(PipelineError, match="seeds begin at 0, got -1"):
        sampler(-1)


def test_waveforms_are_as_long_as_asked():
    sampler = sampler_for("dpmpp-2m", seconds=0.0201)
    latents = sampler(1)
    assert latents.shape == (2, PATCH, 21)
    assert sampler.decode(latents).shape == (2, 1, 21 * PATCH)
    assert sampler.decode(10 * latents).abs().max() == 1.0


def test_cached_knows_no_scheduler_but_a_solver():
    sampler = sampler_for("dpmpp-2m")
    assert sampler.scheduler is None
    schedule = schedule_for("dpmpp-2m")
    fingerprint = schedule.fingerprint.changed(solver=sampler.solver_name)
    schedule = schedule.changed(fingerprint=fingerprint)
    other = sampler_for("k-lms")
    with (
        pytest.warns(SmoothCacheWarning, match=r"solver is 'k-lms\(sigma_min=0.3"),
        cached(other.model, other.adapter, schedule, solver=other.solver_name),
    ):
        other(1)


# ---------------------------------------------------------------------------- finer runs


@pytest.mark.parametrize("solver", ["dpmpp-2m", "v-ddim", "euler"])
def test_finer_runs_pass_the_timesteps_of_the_run_from_the_same_noise(solver: str):
    sampler = sampler_for(solver)
    plain = record(sampler, 0)
    fine = finer_run(sampler, plain, 4)
    assert fine.evaluations > 3 * plain.evaluations
    torch.testing.assert_close(fine.latents[0], plain.latents[0])
    assert torch.isfinite(fine.latents).all()
