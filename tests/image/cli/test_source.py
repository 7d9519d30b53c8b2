from pathlib import Path
from typing import Any

import pytest
from smoothcache_core.errors import CommandError
from smoothcache_image.cli import PictureSource
from smoothcache_image.loading import SHIPPED


def source(model: str, **settings: Any) -> PictureSource:
    given = {"samples": 20, "batch": None, "guidance": None, "labels": None, "prompts": ()}
    given |= {"device": "cpu", "dtype": "auto", "solver": "default", "size": None}
    return PictureSource(**{"model": model, "steps": None, "seed": 5, **given, **settings})


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_has_a_guidance_and_a_batch_of_its_own(name: str):
    sampler = source(name).sampler(steps=2)
    assert (sampler.guidance, sampler.samples) == (1.5, 10)
    assert source(name).seeds == range(5, 7)
    assert source(name, samples=14).run_samples == 7


def test_another_model_has_neither(dit_folder: Path):
    sampler = source(str(dit_folder)).sampler(steps=2)
    assert (sampler.guidance, sampler.samples) == (None, 1)
    assert source(str(dit_folder)).seeds == range(5, 25)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_given_counts(name: str):
    sampler = source(name, guidance=1.0, batch=4).sampler(steps=2)
    assert (sampler.guidance, sampler.samples) == (1.0, 4)


def test_a_batch_that_leaves_samples_over_is_refused():
    with pytest.raises(CommandError, match="--batch 3 must divide --samples 20"):
        source("digits", batch=3)
