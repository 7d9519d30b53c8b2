"""Loading a diffusers pipeline and choosing its solver. Nothing heavy is loaded before a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from smoothcache_core.errors import PipelineError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from smoothcache_core.pipelines.loading import Dtype

Solver = Literal["default", "ddim", "dpmsolver++", "sde-dpmsolver++"]

DIGITS = "digits"
SHIPPED: Mapping[str, str] = MappingProxyType({DIGITS: "digits-dit", "digits-flow": "digits-flow"})
"""The small models that come with this package, by name, and the folders they are in.

Both draw handwritten digits, ten classes: `"digits"` predicts noise, `"digits-flow"` a flow.
"""

DIGITS_GUIDANCE = 1.5
"""Guidance that the shipped models look best with."""

_NOISE_PREDICTIONS = ("epsilon", "sample", "v_prediction")


def digits_folder(model: str = DIGITS) -> Path:
    """Return the pipeline folder of a shipped model, `"digits"` or `"digits-flow"`.

    Raises:
        PipelineError: No such model comes with this package.
    """
    from smoothcache_core.pipelines.loading import shipped_folder

    return shipped_folder("smoothcache_image", SHIPPED, model)


def load_pipeline(
    model: str | Path = DIGITS,
    *,
    device: str = "auto",
    dtype: Dtype = "auto",
    solver: Solver = "default",
) -> DiffusionPipeline:
    """Load a pipeline as diffusers does, onto a device, with a solver.

    Args:
        model: `"digits"` or `"digits-flow"` (the shipped models), a pipeline folder, or a name on
            the model hub.
        device: A torch device, or `"auto"`: CUDA if there is any, else the CPU.
        dtype: Data type of the weights; `"auto"` is float32 on the CPU and bfloat16 elsewhere.
        solver: What to sample with: `"default"` is what the pipeline comes with, else it is rebuilt
            by `with_solver`.

    Raises:
        PipelineError: There is no such model, device or pipeline, or it cannot have that solver.
    """
    from diffusers.utils import logging as diffusers_log
    from smoothcache_core.pipelines.loading import loaded_pipeline, quietly
    from transformers.utils import logging as transformers_log

    with quietly(
        diffusers_log
    ):  # it remarks on other packages, such as torchao, while it is loaded
        from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    pipe = loaded_pipeline(
        DiffusionPipeline,
        model,
        package="smoothcache_image",
        shipped=SHIPPED,
        device=device,
        dtype=dtype,
        logs=(diffusers_log, transformers_log),
    )
    pipe.scheduler = with_solver(pipe.scheduler, solver)
    return pipe


def with_solver(scheduler: Any, solver: Solver) -> Any:
    """Return the scheduler of a pipeline, rebuilt as another solver from the same settings.

    Args:
        scheduler: The pipeline's scheduler.
        solver: `"default"` keeps it. `"ddim"` is for models that predict noise. `"dpmsolver++"`
            and `"sde-dpmsolver++"` (second order, multistep; the latter adds noise at every step)
            are also for models that predict a flow, if their scheduler has `use_flow_sigmas`.

    Raises:
        PipelineError: The model is not one that the solver can sample.
    """
    if solver == "default":
        return scheduler
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    config = scheduler.config
    flow_sigmas = bool(config.get("use_flow_sigmas"))
    noise = not flow_sigmas and config.get("prediction_type", "flow") in _NOISE_PREDICTIONS
    if not noise and (solver == "ddim" or not flow_sigmas):
        raise PipelineError(
            f"solver {solver!r} needs a model that predicts noise, but {type(scheduler).__name__} "
            f"samples a flow; use 'default'{' or another solver' if flow_sigmas else ''}"
        )
    if solver == "ddim":
        return DDIMScheduler.from_config(config)
    return DPMSolverMultistepScheduler.from_config(config, algorithm_type=solver, solver_order=2)
