import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils import logging as diffusers_log
from smoothcache_core.errors import PipelineError
from smoothcache_image import digits_folder, load_pipeline
from smoothcache_image.loading import SHIPPED, Solver, with_solver
from transformers.utils import logging as transformers_log

FLOW: Any = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def test_a_folder_loads_as_the_class_it_names(dit_folder: Path):
    pipe = load_pipeline(dit_folder, device="cpu")
    assert isinstance(pipe, DiTPipeline)
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.float32


def test_dtype_is_that_asked_for(dit_folder: Path):
    assert load_pipeline(dit_folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("log", [diffusers_log, transformers_log])
def test_loading_leaves_the_log_as_it_was(log: Any, lumina2_folder: Path):
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load_pipeline(lumina2_folder, device="cpu")
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


def test_loading_says_nothing(lumina2_folder: Path, capfd: pytest.CaptureFixture[str]):
    load_pipeline(lumina2_folder, device="cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_a_pipeline_of_ten_classes(name: str):
    pipe: Any = load_pipeline(name, device="cpu")
    assert sorted(pipe.labels.values()) == list(range(10))
    assert json.loads((digits_folder(name) / "model_index.json").read_text())["transformer"]
    assert bool(pipe.scheduler.config.get("use_flow_sigmas")) == (name == "digits-flow")


def test_the_digits_are_the_model_when_none_is_named():
    assert digits_folder() == digits_folder("digits")
    pipe: Any = load_pipeline(device="cpu")
    assert pipe.config["_name_or_path"] == str(digits_folder())


def test_a_model_that_is_not_shipped_has_no_folder():
    with pytest.raises(PipelineError, match="models are 'digits', 'digits-flow', not 'letters'"):
        digits_folder("letters")


@pytest.mark.parametrize("name", ["missing", "digits-diffusion", "a/b/c", "~/missing-model"])
def test_a_missing_folder_is_refused(name: str):
    with pytest.raises(PipelineError, match=f"no model folder '{name}'"):
        load_pipeline(name)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"it has no model_index\.json"):
        load_pipeline(tmp_path)


def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(PipelineError, match="cannot load model") as caught:
        load_pipeline(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["quux", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(dit_folder: Path, device: str):
    with pytest.raises(PipelineError, match=f"device '{device}' cannot be used"):
        load_pipeline(dit_folder, device=device)


# ---------------------------------------------------------------------------- solvers


@pytest.mark.parametrize("solver", ["dpmsolver++", "sde-dpmsolver++"])
def test_a_solver_keeps_the_noise_schedule(dit_folder: Path, solver: Solver):
    own = load_pipeline(dit_folder, device="cpu").scheduler
    pipe = load_pipeline(dit_folder, device="cpu", solver=solver)
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    assert pipe.scheduler.config["algorithm_type"] == solver
    assert pipe.scheduler.config["solver_order"] == 2
    assert torch.equal(pipe.scheduler.alphas_cumprod, own.alphas_cumprod)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of diffusers, under numpy 2
@pytest.mark.parametrize("solver", ["dpmsolver++", "sde-dpmsolver++"])
def test_a_flow_gets_a_solver_of_second_order_at_the_same_sigmas(solver: Solver):
    own = DPMSolverMultistepScheduler(flow_shift=3.0, solver_order=1, **FLOW)
    other = with_solver(own, solver)
    for scheduler in (own, other):
        scheduler.set_timesteps(7)
    assert (own.config["solver_order"], other.config["solver_order"]) == (1, 2)
    assert other.config["algorithm_type"] == solver
    assert torch.equal(other.sigmas, own.sigmas)
    assert torch.equal(other.timesteps, own.timesteps)


def test_ddim_is_rebuilt_from_another_solver():
    solver = with_solver(DPMSolverMultistepScheduler(beta_end=0.03), "ddim")
    assert isinstance(solver, DDIMScheduler)
    assert solver.config["beta_end"] == 0.03


def test_default_is_the_very_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    assert with_solver(scheduler, "default") is scheduler


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "sde-dpmsolver++"])
def test_flow_matching_without_such_sigmas_keeps_its_own_solver(solver: Solver):
    message = "needs a model that predicts noise, .* samples a flow; use 'default'$"
    with pytest.raises(PipelineError, match=message):
        with_solver(FlowMatchEulerDiscreteScheduler(), solver)


def test_a_flow_is_not_sampled_by_ddim():
    with pytest.raises(PipelineError, match=r"samples a flow; use 'default' or another solver$"):
        with_solver(DPMSolverMultistepScheduler(**FLOW), "ddim")
