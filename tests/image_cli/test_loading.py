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
from smoothcache_image import PipelineError, digits_folder, load_pipeline
from smoothcache_image._loading import Solver, with_solver
from transformers.utils import logging as transformers_log


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


def test_the_shipped_model_is_a_pipeline_of_ten_classes():
    pipe = load_pipeline(device="cpu")
    assert sorted(pipe.labels.values()) == list(range(10))
    assert json.loads((digits_folder() / "model_index.json").read_text())["transformer"]


@pytest.mark.parametrize("name", ["missing", "a/b/c", "~/missing-model"])
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


def test_a_solver_keeps_the_noise_schedule(dit_folder: Path):
    own = load_pipeline(dit_folder, device="cpu").scheduler
    pipe = load_pipeline(dit_folder, device="cpu", solver="dpmsolver++")
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    assert pipe.scheduler.config["algorithm_type"] == "dpmsolver++"
    assert torch.equal(pipe.scheduler.alphas_cumprod, own.alphas_cumprod)


def test_ddim_is_rebuilt_from_another_solver():
    solver = with_solver(DPMSolverMultistepScheduler(beta_end=0.03), "ddim")
    assert isinstance(solver, DDIMScheduler)
    assert solver.config["beta_end"] == 0.03


def test_default_is_the_very_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    assert with_solver(scheduler, "default") is scheduler


@pytest.mark.parametrize(
    "flow",
    [
        FlowMatchEulerDiscreteScheduler(),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
    ids=lambda flow: type(flow).__name__,
)
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
def test_flow_matching_keeps_its_own_solver(flow: object, solver: Solver):
    with pytest.raises(PipelineError, match="needs a model that predicts noise"):
        with_solver(flow, solver)
