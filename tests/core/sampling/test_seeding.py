"""Seeds are integers, whoever made them."""

from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import ADAPTER, Toy, schedule_of
from smoothcache_core import Sampler, calibrate, evaluate, fit
from smoothcache_core.errors import CalibrationError, EvaluationError
from smoothcache_core.sampling.seeding import checked_seeds

TAKEN: list[Any] = [range(3), np.arange(3), list(np.arange(3, dtype=np.uint8)), torch.arange(3)]


@pytest.mark.parametrize("seeds", TAKEN, ids=["range", "numpy", "list", "torch"])
def test_integers_of_other_libraries_are_integers(seeds: Any):
    found = checked_seeds(seeds, "calibration", CalibrationError)
    assert found == [0, 1, 2]
    assert {type(seed) for seed in found} == {int}


REFUSED: dict[str, Any] = {
    "floats": [0.0, 1.0],
    "numpy floats": np.arange(2.0),
    "truth": [True],
    "truth of numpy": np.array([True]),
    "text": "01",
    "nothing": None,
    "one number": 3,
    "none": [],
    "twice": [1, 1],
    "twice by two types": [1, np.int64(1)],
    "too large": [2**64],
    "tensors of several": [torch.arange(2)],
}


@pytest.mark.parametrize("seeds", REFUSED.values(), ids=REFUSED)
def test_other_seeds_are_refused_before_anything_is_sampled(seeds: Any):
    def never(seed: int) -> None:
        raise AssertionError(seed)

    sampler = Sampler(model=Toy(), adapter=ADAPTER, run=never)
    with pytest.raises(CalibrationError, match=r"calibration needs|`seeds` must be several"):
        calibrate(sampler, seeds=seeds, progress=False)
    with pytest.raises(CalibrationError, match=r"fitting needs|`seeds` must be several"):
        fit(sampler, schedule_of(), seeds=seeds, progress=False)
    with pytest.raises(EvaluationError, match=r"evaluation needs|`seeds` must be several"):
        evaluate(sampler, {"one": schedule_of()}, seeds=seeds, progress=False)
