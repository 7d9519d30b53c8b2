"""Rules that decide while sampling, frozen: their rows are those that they would decide."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from smoothcache_core.errors import ScheduleError
from smoothcache_core.sources import magcache, teacache

numbers = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=25)


def decided_by_teacache(distances: list[float], threshold: float, scale: float) -> tuple[int, ...]:
    """The published loop: it adds up, and computes where the sum is not below the threshold."""
    row, total = [1], 0.0
    for number, distance in enumerate(distances, start=1):
        total += scale * distance
        if number == len(distances) or not total < threshold:
            total = 0.0
            row.append(1)
        else:
            row.append(0)
    return tuple(row)


@given(numbers, st.floats(0.01, 2.0), st.sampled_from([1.0, 0.5, 2.0]))
def test_teacache_is_its_published_loop(distances: list[float], threshold: float, scale: float):
    schedule = teacache(distances, threshold=threshold, polynomial=(scale, 0.0))
    assert schedule.rows["denoiser"] == decided_by_teacache(distances, threshold, scale)


def test_a_polynomial_makes_of_distances_the_changes():
    rows = teacache([0.2, 0.2, 0.2], threshold=0.11, polynomial=(1.0, 0.0, 0.05)).rows
    assert rows["denoiser"] == (1, 0, 1, 1)  # 0.09 each: 0.04 of the square, and 0.05


def decided_by_magcache(
    ratios: list[float], threshold: float, most: int, retention: float
) -> tuple[int, ...]:
    """The loop of diffusers' MagCache, which has a residual from the first evaluation on."""
    row = []
    product, total, skipped, residual = 1.0, 0.0, 0, False
    for step, ratio in enumerate(ratios):
        computed = True
        if step >= int(retention * len(ratios) + 0.5) and step:
            product *= ratio
            skipped += 1
            total += abs(1.0 - product)
            if residual and total <= threshold and skipped <= most:
                computed = False
            else:
                product, total, skipped = 1.0, 0.0, 0
        residual = residual or computed
        row.append(int(computed))
    return tuple(row)


@given(
    st.lists(st.floats(0.5, 1.2), min_size=1, max_size=25),
    st.floats(0.0, 0.5),
    st.integers(1, 5),
    st.floats(0.0, 1.0),
)
def test_magcache_is_its_published_loop(
    ratios: list[float], threshold: float, most: int, retention: float
):
    schedule = magcache(ratios, threshold=threshold, most_skipped=most, retention=retention)
    assert schedule.rows["denoiser"] == decided_by_magcache(ratios, threshold, most, retention)


def test_rows_may_be_of_a_span_of_blocks():
    schedule = magcache([1.0, 1.0, 1.0], threshold=0.1, retention=0.0, key="middle")
    assert schedule.rows == {"middle": (1, 0, 0)}
    assert schedule.source.settings["rule"] == "magcache"


@pytest.mark.parametrize(
    ("rule", "settings", "said"),
    [
        (teacache, {"threshold": 0.0}, "above 0"),
        (teacache, {"threshold": np.nan}, "above 0"),
        (magcache, {"threshold": -0.1}, "at least 0"),
        (magcache, {"threshold": 0.1, "most_skipped": 0}, "most_skipped"),
        (magcache, {"threshold": 0.1, "retention": 1.5}, "retention"),
    ],
)
def test_impossible_settings_are_refused(rule: Any, settings: dict[str, Any], said: str):
    with pytest.raises(ScheduleError, match=said):
        rule([0.1, 0.1], **settings)


@pytest.mark.parametrize("values", [[], [0.1, np.nan], [-0.1], [[0.1]]])
def test_impossible_numbers_are_refused(values: Any):
    for rule in (teacache, magcache):
        with pytest.raises(ScheduleError, match="finite numbers"):
            rule(values, threshold=0.1)
