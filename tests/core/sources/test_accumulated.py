"""Block Caching's rule: reuse until accumulated changes exceed a threshold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kit.helpers import calibration_of
from smoothcache_core.errors import ScheduleError
from smoothcache_core.sources import accumulate, block_caching


@pytest.mark.parametrize(
    ("changes", "threshold", "row"),
    [
        ([0.1, 0.1, 0.3, 0.1], 0.25, (1, 0, 0, 1, 0)),
        ([0.1, 0.2, 0.1], 0.0, (1, 1, 1, 1)),
        ([0.0, 0.0, 0.0], 0.0, (1, 0, 0, 0)),
        ([0.5, 0.1, 0.1, 0.1, 0.1], 0.35, (1, 1, 0, 0, 0, 1)),
        ([], 1.0, (1,)),
    ],
)
def test_worked_examples(changes: list[float], threshold: float, row: tuple[int, ...]):
    assert accumulate(changes, threshold) == row


@given(st.lists(st.floats(0.0, 1.0), max_size=20), st.floats(0.0, 3.0), st.integers(1, 5))
def test_no_stretch_of_skipped_evaluations_changes_more(
    changes: list[float], threshold: float, longest: int
):
    row = accumulate(changes, threshold, longest=longest)
    since = 0.0
    stretch = 0
    for change, computed in zip(changes, row[1:], strict=True):
        since, stretch = since + change, stretch + 1
        if computed:
            since, stretch = 0.0, 0
        assert since <= threshold
        assert stretch <= longest


def test_every_site_has_a_row_of_its_own():
    errors = np.full((2, 3, 4), 0.1)
    errors[1] = 0.3
    rows = block_caching(calibration_of(errors), threshold=0.25).rows
    assert rows == {"blocks.0.attn": (1, 0, 0, 1), "blocks.0.ff": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": -1.0}, "at least 0"),
        ({"threshold": np.inf}, "finite"),
        ({"threshold": 0.1, "max_lag": 9}, "max_lag must be from 1"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], said: str):
    calibration = calibration_of(np.full((2, 3, 4), 0.1))
    with pytest.raises(ScheduleError, match=said):
        block_caching(calibration, **given)
