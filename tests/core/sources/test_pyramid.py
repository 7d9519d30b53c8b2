"""Pyramid attention broadcast as schedules."""

from typing import Any

import pytest
from smoothcache_core.errors import ScheduleError
from smoothcache_core.sources import pyramid


def test_kinds_are_broadcast_at_their_own_intervals_inside_the_window():
    schedule = pyramid({"spatial": 2, "temporal": 4, "cross": 6}, evaluations=30)
    spatial, temporal, cross = (schedule.rows[key] for key in ("spatial", "temporal", "cross"))
    low, high = 2, 16  # 0.07 and 0.55 of 30 evaluations
    for row, every in ((spatial, 2), (temporal, 4), (cross, 6)):
        assert row[:low] == (1,) * low
        assert row[high:] == (1,) * (30 - high)
        assert [i for i in range(low, high) if row[i]] == list(range(low, high, every))


def test_a_range_of_one_computes_everything():
    assert pyramid({"mlp": 1}, evaluations=10, window=(0.0, 1.0)).rows == {"mlp": (1,) * 10}


def test_settings_are_recorded():
    source = pyramid({"attn": 2}, evaluations=10).source
    assert (source.name, source.settings["ranges"]) == ("pyramid", "attn 2")


@pytest.mark.parametrize(
    ("ranges", "given", "said"),
    [
        ({}, {"evaluations": 4}, "at least one kind"),
        ({"attn": 0}, {"evaluations": 4}, "at least 1"),
        ({"attn": 2}, {"evaluations": 0}, "evaluations"),
        ({"attn": 2}, {"evaluations": 4, "window": (0.5, 0.2)}, "ascending"),
        ({"attn": 2}, {"evaluations": 4, "window": (0.5, 1.2)}, "shares"),
    ],
)
def test_impossible_settings_are_refused(ranges: dict[str, int], given: dict[str, Any], said: str):
    with pytest.raises(ScheduleError, match=said):
        pyramid(ranges, **given)
