"""Limits: what is refused when they are made, and what they leave to choose."""

from typing import Any

import pytest
from hypothesis import given, strategies as st
from smoothcache_core.errors import ScheduleError
from smoothcache_core.planning import Limits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": 0}, "first is at least 1, got 0"),
        ({"pinned": (3, -1)}, r"pinned evaluations are counted from 0, got \[-1\]"),
        ({"max_lag": 0}, "max_lag is at least 1, got 0"),
        ({"max_lag": -3}, "max_lag is at least 1, got -3"),
        ({"max_bytes": -1}, "max_bytes is at least 0, got -1"),
        ({"max_rows": 0}, "max_rows is at least 1, got 0"),
    ],
)
def test_what_no_run_can_keep_to_is_refused_when_it_is_made(wrong: dict[str, Any], message: str):
    with pytest.raises(ScheduleError, match=message):
        Limits(**wrong)


def test_what_is_past_the_end_is_refused_for_a_run():
    Limits(first=5, pinned=(4,)).check(5)
    with pytest.raises(ScheduleError, match="first is from 1 to 5 evaluations, got 6"):
        Limits(first=6).check(5)
    with pytest.raises(ScheduleError, match=r"from 0 to 4, got \[5, 9\]"):
        Limits(pinned=(9, 0, 5)).check(5)


@given(st.integers(1, 3), st.sets(st.integers(0, 9), max_size=3), st.none() | st.integers(1, 10))
def test_the_fewest_evaluations_keep_the_limits_and_none_can_be_spared(
    first: int, pinned: set[int], max_lag: int | None
):
    limits = Limits(first=first, pinned=pinned, max_lag=max_lag)
    fewest = limits.fewest(10)
    assert limits.computed == {*range(first), *pinned}
    assert limits.computed <= fewest
    assert longest_gap(fewest) <= (max_lag or 10)
    for spared in fewest - limits.computed:
        assert longest_gap(fewest - {spared}) > (max_lag or 10)


def longest_gap(computed: frozenset[int]) -> int:
    row = "".join("1" if i in computed else "0" for i in range(10))
    return max(map(len, row.split("1")))
