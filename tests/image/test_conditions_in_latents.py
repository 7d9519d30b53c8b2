"""Real classes whose latent argument holds a condition as well: planned as any other."""

import pytest
import torch
from kit.conditioned_models import CASES, ConditionedCase
from smoothcache_core import Schedule, cached, calibrate, plan
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.outputs.structures import denoised
from smoothcache_core.sampling import Sampler
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:only 2 samples were calibrated")
SOME = ("Wan image to video", "Flux Kontext", "LTX image to video")
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if name in SOME else [pytest.mark.zoo])
        for name, case in CASES.items()
    ],
)


def error_of(sampler: Sampler, schedule: Schedule, case: ConditionedCase) -> float:
    plain = sampler.final_latent(5)
    with cached(sampler.model, sampler.adapter, schedule, solver="euler") as stats:
        found = sampler.final_latent(5)
    assert stats.recomputed == 0
    return float((own(found, case) - own(plain, case)).norm() / own(plain, case).norm())


def highest(schedule: Schedule) -> float:
    """Return the upper end of what a schedule promises."""
    assert schedule.prediction is not None
    assert schedule.prediction.high is not None
    return schedule.prediction.high


def own(final: Tensor, case: ConditionedCase) -> Tensor:
    return denoised(final, case.part) if case.fixed else final


@every_case
@torch.no_grad()
def test_what_is_denoised_is_found_and_planned(case: ConditionedCase):
    sampler = case.sampler()
    calibration = calibrate(sampler, seeds=[0, 1], progress=False)
    assert calibration.remark == ""
    assert calibration.fingerprint.latent_part == case.part
    schedule = plan(calibration, compute=0.5, target="denoiser")
    assert schedule.row(DENOISER).count(0) == 4
    assert error_of(sampler, schedule, case) < highest(schedule)
    if case.of_sites:
        by_sites = plan(calibration, compute=0.9, target="site")
        assert error_of(sampler, by_sites, case) < 2 * highest(by_sites)


@torch.no_grad()
def test_unconditional_passes_are_skipped_whatever_their_condition():
    case = CASES["Stable Video Diffusion"]
    sampler = case.sampler()
    calibration = calibrate(sampler, seeds=[0, 1], progress=False)
    schedule = plan(calibration, compute=0.6, target="guidance")
    assert 0 in schedule.row(GUIDANCE)
    assert error_of(sampler, schedule, case) < highest(schedule)
