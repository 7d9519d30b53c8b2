import json
from pathlib import Path
from typing import Any

import pytest
from smoothcache_audio import shipped_folder
from smoothcache_audio.cli import SoundSource
from smoothcache_audio.loading import SHIPPED_GUIDANCE, SHIPPED_SIGMAS, WORD_SECONDS
from smoothcache_core.errors import CommandError, PipelineError


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
    assert (sampler.conditions, sampler.steps, sampler.samples) == ([7], 3, 1)


def test_another_model_than_the_shipped_one_has_the_settings_of_stable_audio_open(
    digits_folder: Path,
):
    sampler = SoundSource(model=str(digits_folder), device="cpu").sampler(steps=3)
    assert sampler.guidance is None
    assert (sampler.sigma_min, sampler.sigma_max) == (0.3, 500.0)
    assert sampler.conditions == list(range(10))


def test_the_shipped_model_has_settings_of_its_own():
    source = SoundSource(samples=20, seed=5)
    assert (source.run_samples, source.seeds) == (10, range(5, 7))
    sampler = source.sampler(steps=2)
    assert sampler.guidance == SHIPPED_GUIDANCE
    assert (sampler.sigma_min, sampler.sigma_max) == SHIPPED_SIGMAS
    assert sampler.conditions[3] == {"digit": 3, "seconds_total": WORD_SECONDS}
    assert len(sampler.conditions) == 10
    training = json.loads((shipped_folder() / "model_config.json").read_text())["training"]
    assert training["demo"]["demo_cfg_scales"] == [SHIPPED_GUIDANCE]


def test_digits_are_named():
    sampler = SoundSource(labels="three, 0-1,9").sampler(steps=2)
    assert [condition["digit"] for condition in sampler.conditions] == [3, 0, 1, 9]
    with pytest.raises(PipelineError, match=r"such as \['zero', 'one', 'two'\]"):
        SoundSource(labels="ten").sampler(steps=2)
