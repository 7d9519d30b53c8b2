from pathlib import Path
from typing import Any

import pytest
from smoothcache_audio._source import SoundSource
from smoothcache_core.cli.errors import CommandError


@pytest.mark.parametrize(
    ("solver", "evaluations", "steps"),
    [("default", 100, 100), ("dpmpp-3m-sde", 7, 7), ("k-heun", 19, 10), ("rk4", 40, 10)],
)
def test_steps_are_those_that_make_the_evaluations(solver: str, evaluations: int, steps: int):
    assert SoundSource(solver=solver).steps_for(evaluations) == steps


@pytest.mark.parametrize(("solver", "evaluations"), [("k-dpm-2", 20), ("rk4", 42)])
def test_evaluations_that_no_steps_make_are_refused(solver: str, evaluations: int):
    with pytest.raises(CommandError, match=f"{solver}' never makes {evaluations} evaluations"):
        SoundSource(solver=solver).steps_for(evaluations)


def test_what_is_given_counts(digits_folder: Path):
    given: dict[str, Any] = {"guidance": 4.0, "sigma_min": 0.1, "sigma_max": 80.0, "labels": "7"}
    sampler = SoundSource(model=str(digits_folder), device="cpu", **given).sampler(steps=3)
    assert (sampler.guidance, sampler.sigma_min, sampler.sigma_max) == (4.0, 0.1, 80.0)
    assert (sampler.conditions, sampler.steps, sampler.batch) == ([7], 3, 1)


def test_another_model_than_the_shipped_one_has_the_settings_of_stable_audio_open(
    digits_folder: Path,
):
    sampler = SoundSource(model=str(digits_folder), device="cpu").sampler(steps=3)
    assert sampler.guidance is None
    assert (sampler.sigma_min, sampler.sigma_max) == (0.3, 500.0)
    assert sampler.conditions == list(range(10))
