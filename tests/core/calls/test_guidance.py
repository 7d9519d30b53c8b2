"""Guidance that is announced, and runs at another one."""

import warnings
from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, Toy, noise, sample, silent
from smoothcache_core import Calibration, Schedule, SmoothCacheWarning, cached, calibrate
from smoothcache_core.pipelines import announcing_guidance, pipeline_announcing
from smoothcache_core.sources import interval
from torch import Tensor

TOLD = r"guidance is \{'guidance_scale': 4.0\} instead of \{'guidance_scale': 1.5\}"


def sampled(toy: Toy, seed: int) -> Tensor:
    return sample(toy, latent=noise(seed))[-1]


class Pipeline:
    """Samples a toy; its guidance changes nothing that the toy is told."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def __call__(
        self, seed: int, guidance_scale: float = 1.5, true_cfg_scale: Any = None
    ) -> Tensor:
        return sampled(self.toy, seed)


class Unguided:
    """Has no guidance."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def __call__(self, seed: int) -> Tensor:
        return sampled(self.toy, seed)


class Scaled(Toy):
    """Is told its guidance."""

    def forward(self, hidden_states: Tensor, timestep: Any, **kwargs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert kwargs.keys() <= {"cfg_scale"}
        return super().forward(hidden_states, timestep)


def calibrated(pipe: Pipeline) -> Any:
    def run(seed: int) -> Tensor:
        with pipeline_announcing(pipe):
            return pipe(seed)

    sampler = silent(pipe.toy, run)
    return calibrate(sampler, seeds=[0], max_lag=2, sensitivity=0, progress=False)


def test_the_default_of_a_pipeline_is_remembered_and_another_scale_is_told_once():
    pipe = Pipeline(Toy())
    calibration = calibrated(pipe)
    assert calibration.fingerprint.guidance == {"guidance_scale": 1.5}
    schedule = every_second(calibration)
    with pytest.warns(SmoothCacheWarning, match=TOLD) as told:
        at_four_twice(pipe, schedule)
    assert len(told) == 1


def every_second(calibration: Calibration) -> Schedule:
    return interval(
        2,
        evaluations=calibration.evaluations,
        kinds=calibration.kinds,
        fingerprint=calibration.fingerprint,
    )


def at_four_twice(pipe: Pipeline, schedule: Schedule) -> None:
    with pipeline_announcing(pipe), cached(pipe.toy, ADAPTER, schedule):
        pipe(1, guidance_scale=4.0)
        pipe(2, 4.0)


def test_the_same_scale_is_not_told():
    pipe = Pipeline(Toy())
    calibration = calibrated(pipe)
    schedule = every_second(calibration)
    with (
        warnings.catch_warnings(),
        pipeline_announcing(pipe),
        cached(pipe.toy, ADAPTER, schedule),
    ):
        warnings.simplefilter("error")
        pipe(1, guidance_scale=1.5)


def test_what_the_denoiser_is_told_counts():
    toy = Scaled()

    def run(seed: int) -> Tensor:
        x = noise(seed)
        for step in range(4):
            x = x - 0.1 * toy(x, timestep=torch.tensor(4.0 - step), cfg_scale=7)
        return x

    with torch.no_grad():
        calibration = calibrate(
            silent(toy, run), seeds=[0], max_lag=2, sensitivity=0, progress=False
        )
    assert calibration.fingerprint.guidance == {"cfg_scale": 7.0}


def test_announcements_nest_and_end():
    pipe = Pipeline(Toy())
    with announcing_guidance(guidance_scale=2.0), announcing_guidance(cfg_scale=3.0):
        assert _scale(pipe.toy) == {"guidance_scale": 2.0, "cfg_scale": 3.0}
    assert _scale(pipe.toy) is None


def _scale(toy: Toy) -> Any:
    sampler = silent(toy, lambda seed: sampled(toy, seed))
    calibration = calibrate(sampler, seeds=[0], max_lag=1, sensitivity=0, progress=False)
    return calibration.fingerprint.guidance


@pytest.mark.parametrize("kind", [Pipeline, Unguided])
def test_a_pipeline_is_itself_again(kind: type[Any]):
    pipe = kind(Toy())
    with pytest.raises(ZeroDivisionError):
        fail_while_announcing(pipe, kind)
    assert type(pipe) is kind
    assert vars(pipe) == {"toy": pipe.toy}


def fail_while_announcing(pipe: Any, kind: type[Any]) -> None:
    with pipeline_announcing(pipe):
        assert isinstance(pipe, kind)
        assert (type(pipe).__name__, type(pipe).__module__) == (kind.__name__, __name__)
        raise ZeroDivisionError
