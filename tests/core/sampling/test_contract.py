"""What a sampler's `run` may return: one contract, for all that take a sampler."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.planning import MIXTURE, Mixture, OneStep, ToySampler
from smoothcache_core import Sampler, Schedule, calibrate, evaluate, fit, plan, transfer
from smoothcache_core.errors import SamplerError
from torch import Tensor

STEPS = 12
TOY = ToySampler(Mixture((1.0, 0.5), STEPS), lambda: OneStep(STEPS))
SCHEDULE = Schedule(evaluations=STEPS, rows={"denoiser": (1, 0, 1, 0, 1, 1) * 2})


def calibrated(sampler: Sampler) -> Any:
    return calibrate(sampler, seeds=(0, 1), max_lag=3, progress=False)


def transferred(sampler: Sampler) -> Any:
    return transfer(calibrated(TOY.value()), sampler)


def fitted(sampler: Sampler) -> Any:
    return fit(sampler, SCHEDULE, seeds=(0, 1, 2, 3), progress=False)


def evaluated(sampler: Sampler) -> Any:
    return evaluate(sampler, {"half": SCHEDULE}, seeds=(8,), progress=False)


takers = pytest.mark.parametrize("take", [calibrated, transferred, fitted, evaluated])


def returning(result: Callable[[Tensor], object]) -> Sampler:
    return TOY.value(run=lambda seed: result(TOY(seed)))


@takers
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda latent: [latent], "it returned a list of length 1"),
        (lambda latent: (latent, None), "it returned a tuple of length 2"),
        (lambda latent: {"sample": latent}, "it returned a dict"),
        (lambda latent: latent[:1], r"it returned a tensor of shape \(1, 3, 4\) \(set samples=1"),
        (lambda latent: latent.sum(), r"it returned a tensor of shape \(\)"),
    ],
    ids=["list", "tuple", "output", "fewer samples", "number"],
)
def test_anything_but_the_final_latent_is_refused_by_all_alike(
    take: Callable[[Sampler], Any], result: Callable[[Tensor], object], said: str
):
    expected = r"`run` must return the final latents, a tensor \(2, ...\) for samples=2"
    with pytest.raises(SamplerError, match=f"{expected}, .*; {said}"):
        take(returning(result))


@pytest.mark.parametrize("take", [calibrated, transferred, fitted])
def test_a_latent_of_another_size_is_refused(take: Callable[[Sampler], Any]):
    with pytest.raises(SamplerError, match=r"of 24 entries .* of shape \(2, 6, 4\)"):
        take(returning(lambda latent: torch.cat((latent, latent), dim=1)))


@pytest.mark.parametrize("take", [transferred, fitted, evaluated])
def test_without_a_final_latent_nothing_but_calibrating_can_be_done(
    take: Callable[[Sampler], Any],
):
    with pytest.raises(SamplerError, match="transferred to or evaluated; it returned None"):
        take(TOY.value(run=TOY.without_latent))


def test_without_a_final_latent_a_calibration_says_so_and_can_be_planned():
    calibration = calibrated(TOY.value(run=TOY.without_latent))
    assert "`run` returns no final latent" in calibration.remark
    assert calibration.dynamics is not None
    assert plan(calibration, compute=0.7).compute_fraction() <= 0.7
    assert not calibrated(TOY.value()).remark


def test_a_run_has_a_sample():
    with pytest.raises(SamplerError, match="a run has at least 1 sample, got samples=0"):
        TOY.value(samples=0)


def test_what_takes_a_sampler_enters_what_is_around_it():
    entered = []

    class Around:
        def __enter__(self) -> None:
            entered.append("in")

        def __exit__(self, *error: object) -> None:
            entered.append("out")

    sampler = Sampler(model=TOY.value().model, adapter=MIXTURE, run=TOY, samples=2, around=Around)
    for take in (calibrated, transferred, fitted, evaluated):
        entered.clear()
        take(sampler)
        assert entered == ["in", "out"]
