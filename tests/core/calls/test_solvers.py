"""That a run by another solver is told, and what differs."""

from typing import Any

import diffusers
import pytest
import torch
from kit.helpers import ADAPTER, Toy, noise, schedule_of
from smoothcache_core import Sampler, SmoothCacheWarning, attach, cached, calibrate
from smoothcache_core.calls.solvers import solver_name, solver_settings
from smoothcache_core.schedule import Fingerprint
from torch import Tensor


def made(name: str, **settings: Any) -> Any:
    return getattr(diffusers, f"{name}Scheduler")(**settings)


def printed(scheduler: Any) -> Fingerprint:
    return Fingerprint(solver=solver_name(scheduler), solver_settings=solver_settings(scheduler))


CHANGES = [
    ("DDIM", "beta_schedule", "linear", "scaled_linear"),
    ("DDIM", "rescale_betas_zero_snr", False, True),
    ("DDIM", "prediction_type", "epsilon", "v_prediction"),
    ("DDIM", "clip_sample", True, False),
    ("DDIM", "set_alpha_to_one", True, False),
    ("DPMSolverMultistep", "final_sigmas_type", "zero", "sigma_min"),
    ("DPMSolverMultistep", "use_karras_sigmas", False, True),
    ("DPMSolverMultistep", "use_flow_sigmas", False, True),
    ("DPMSolverMultistep", "algorithm_type", "dpmsolver++", "sde-dpmsolver++"),
    ("DPMSolverMultistep", "solver_order", 2, 3),
    ("DPMSolverMultistep", "euler_at_final", False, True),
    ("FlowMatchEulerDiscrete", "shift", 1.0, 3.0),
    ("FlowMatchEulerDiscrete", "stochastic_sampling", False, True),
    ("FlowMatchEulerDiscrete", "shift_terminal", None, 0.02),
    ("UniPCMultistep", "predict_x0", True, False),
]


@pytest.mark.parametrize(("name", "field", "planned", "live"), CHANGES)
def test_whatever_decides_on_a_run_is_told_by_its_name(
    name: str, field: str, planned: Any, live: Any
):
    one, other = printed(made(name, **{field: planned})), printed(made(name, **{field: live}))
    shown = [f"{v:g}" if isinstance(v, float) else v for v in (live, planned)]
    remarks = one.remarks(other)
    assert f"the solver's {field} is {shown[0]}, planned for {shown[1]}" in remarks
    assert one.mismatches(other)
    assert one.remarks(printed(made(name, **{field: planned}))) == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDIM", {"dynamic_thresholding_ratio": 0.9}),  # thresholding is off
        ("DDIM", {"sample_max_value": 2.0}),
        ("DDIM", {"clip_sample": False, "clip_sample_range": 3.0}),
        ("DPMSolverMultistep", {"flow_shift": 2.0}),  # sigmas are not those of a flow
        ("FlowMatchEulerDiscrete", {"base_shift": 0.1}),  # shifting is not dynamic
        ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True, "shift": 5.0}),
    ],
)
def test_what_decides_on_nothing_is_not_told(name: str, settings: dict[str, Any]):
    *rest, (field, value) = settings.items()
    one, other = made(name, **dict(rest)), made(name, **settings)
    assert one.config[field] != value
    assert printed(one).remarks(printed(other)) == []


def test_names_and_values_of_the_configuration_itself_do_not_matter():
    one, other = made("DDIM"), made("DDIM")
    other.register_to_config(_diffusers_version="0.1", _name_or_path="elsewhere")
    assert printed(one) == printed(other)
    assert all(not name.startswith("_") for name in solver_settings(one))


def test_another_class_is_told_as_a_whole():
    one, other = printed(made("DDIM")), printed(made("FlowMatchEulerDiscrete"))
    assert len(one.remarks(other)) == 1
    assert "solver is 'FlowMatchEulerDiscreteScheduler" in one.remarks(other)[0]


OLD = (
    "DPMSolverMultistepScheduler(algorithm_type=dpmsolver++, solver_order=2, use_karras_sigmas={})"
)


@pytest.mark.parametrize(("karras", "expected"), [("False", 0), ("True", 1)])
def test_files_of_before_are_compared_by_what_they_hold(karras: str, expected: int):
    known, live = Fingerprint(solver=OLD.format(karras)), printed(made("DPMSolverMultistep"))
    told = ["the solver's use_karras_sigmas is False, planned for True"][:expected]
    assert known.remarks(live) == told
    assert len(known.mismatches(live)) == expected


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("Euler", "Euler", []),
        ("Euler", "Heun", ["solver is 'Heun' instead of 'Euler'"]),
        ("euler(end=0.1)", "euler(end=0)", ["the solver's end is 0, planned for 0.1"]),
        ("euler(end=0.1)", "euler", ["solver is 'euler' instead of 'euler(end=0.1)'"]),
        ("mine (v1)", "mine (v2)", ["solver is 'mine (v2)' instead of 'mine (v1)'"]),
    ],
)
def test_names_that_a_user_gave_are_compared(one: str, other: str, told: list[str]):
    assert Fingerprint(solver=one).remarks(Fingerprint(solver=other)) == told


# ---------------------------------------------------------------------------- arguments of steps


def sampler_of(toy: Toy, *, by_place: bool = False, **step: Any) -> Sampler:
    scheduler = made("DDIM")

    def run(seed: int) -> Tensor:
        scheduler.set_timesteps(6)
        latent = noise(seed)
        generator = torch.Generator().manual_seed(seed)
        for timestep in scheduler.timesteps:
            with torch.no_grad():
                output = toy(latent, timestep)
            if by_place:
                latent = scheduler.step(output, timestep, latent, *step.values())[0]
            else:
                latent = scheduler.step(output, timestep, latent, generator=generator, **step)[0]
        return latent

    return Sampler(model=toy, adapter=ADAPTER, run=run, scheduler=scheduler, samples=2)


@pytest.mark.parametrize(("planned", "live"), [(None, 0), (0.0, None), (0.5, 0.5), (None, 1.0)])
def test_eta_is_heard_at_the_first_step(planned: float | None, live: float | None):
    def steps(eta: float | None) -> dict[str, Any]:
        return {} if eta is None else {"eta": eta}

    toy = Toy()
    known = calibrate(sampler_of(toy, **steps(planned)), seeds=[0], progress=False).fingerprint
    schedule = schedule_of((1, 1, 1, 0, 1, 1)).changed(fingerprint=known)
    sampler = sampler_of(toy, **steps(live))
    attachment = attach(toy, ADAPTER, schedule, scheduler=sampler.scheduler)
    if live == 1.0:
        with pytest.warns(SmoothCacheWarning, match="the solver's eta is 1, planned for 0"):
            sampler.run(0)
    else:
        sampler.run(0)
    attachment.detach()


def test_arguments_given_by_their_place_are_heard_too():
    toy = Toy()
    known = calibrate(sampler_of(toy, by_place=True, eta=0.7), seeds=[0], progress=False)
    assert known.fingerprint.solver_settings is not None
    assert known.fingerprint.solver_settings["eta"] == 0.7
    assert "return_dict" not in known.fingerprint.solver_settings
    served = sampler_of(toy)
    schedule = schedule_of((1, 1, 1, 0, 1, 1)).changed(fingerprint=known.fingerprint)
    with (
        pytest.warns(SmoothCacheWarning, match=r"eta is 0, planned for 0.7"),
        cached(toy, ADAPTER, schedule, scheduler=served.scheduler),
    ):
        served.run(0)
