"""Dividing the steps of diffusers' schedulers, and of pipelines that have one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.finer import divided, steps_divided
from torch import Tensor

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",  # of diffusers, under numpy 2
    "ignore:__array_wrap__:DeprecationWarning",
)

STEPS = 20
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SCHEDULERS = [
    DDIMScheduler(clip_sample=False),
    DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=False),
    DPMSolverMultistepScheduler(),
    DPMSolverMultistepScheduler(use_karras_sigmas=True),
    DPMSolverMultistepScheduler(**FLOW),
    UniPCMultistepScheduler(),
    UniPCMultistepScheduler(**FLOW),
    EulerDiscreteScheduler(),
    FlowMatchEulerDiscreteScheduler(shift=3.0),
]


def names(scheduler: Any) -> str:
    return f"{type(scheduler).__name__}-{scheduler.config.get('timestep_spacing')}"


def walked(scheduler: Any) -> tuple[dict[float, Tensor], Tensor]:
    """Return what a smooth denoiser is given by timesteps, and the final latent."""
    scheduler.set_timesteps(STEPS)
    latent = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    scale = getattr(scheduler, "init_noise_sigma", None)
    latent = latent * (1.0 if scale is None else scale)
    seen: dict[float, Tensor] = {}
    for timestep in scheduler.timesteps:
        scaled = getattr(scheduler, "scale_model_input", lambda latent, _: latent)
        given = scaled(latent, timestep)
        seen[float(timestep)] = given
        output = 0.2 * torch.sin(3.0 * given + float(timestep) / 500.0) - 0.3 * given
        latent = scheduler.step(output, timestep, latent, return_dict=False)[0]
    return seen, latent


def away(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=names)
def test_divided_steps_pass_the_timesteps_and_come_near_to_one_solution(scheduler: Any):
    seen, plain = walked(scheduler)
    before = dict(vars(scheduler))
    (four, end4), (eight, end8), (_, end16) = (walked(divided(scheduler, k)) for k in (4, 8, 16))
    assert vars(scheduler).keys() == before.keys()
    assert len(eight) > 1.8 * len(four) > 6 * len(seen)
    first = next(iter(seen))
    torch.testing.assert_close(eight[first], seen[first])
    for timestep in seen:
        assert timestep in eight
        assert away(eight[timestep], four[timestep]) < 0.06
    assert away(end8, end16) < 0.6 * away(end4, end16) < 0.6 * away(plain, end16)


def test_a_scheduler_that_cannot_be_divided_is_refused_by_name():
    with pytest.raises(PipelineError, match="steps of a HeunDiscreteScheduler is not known"):
        divided(HeunDiscreteScheduler(), 4)


def test_a_pipeline_has_its_scheduler_back():
    pipe = SimpleNamespace(scheduler=DDIMScheduler())
    own = pipe.scheduler
    with steps_divided(pipe, 4):
        pipe.scheduler.set_timesteps(10, device="cpu")
        assert len(pipe.scheduler.timesteps) > 30
    assert pipe.scheduler is own
    own.set_timesteps(10)
    assert len(own.timesteps) == 10
