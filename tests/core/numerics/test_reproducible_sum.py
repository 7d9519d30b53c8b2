"""Sums that do not depend on the order of the summands."""

import functools
import math
import operator
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from smoothcache_core.numerics.reproducible_sum import LARGEST, cut, joined

VALUES = st.lists(
    st.floats(-1e12, 1e12, allow_subnormal=True) | st.floats(-1.0, 1.0) | st.floats(-1e-15, 1e-15),
    min_size=1,
    max_size=40,
)


def added(parts: Sequence[NDArray[np.float64]], groups: Sequence[int]) -> NDArray[np.float64]:
    """Add parts up in groups, then the groups."""
    sums = [
        np.sum([p for p, group in zip(parts, groups, strict=True) if group == number], axis=0)
        for number in dict.fromkeys(groups)
    ]
    return np.sum(sums, axis=0)


@given(VALUES, st.randoms(use_true_random=False), st.data())
def test_sums_are_the_same_bits_in_any_order_and_grouping(
    values: list[float], random: Random, data: st.DataObject
):
    parts = [cut(np.array([value, -0.5 * value])) for value in values]
    expected = np.sum(parts, axis=0)
    shuffled = list(parts)
    random.shuffle(shuffled)
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(parts), max_size=len(parts)))
    assert added(shuffled, groups).tobytes() == expected.tobytes()
    one_by_one = functools.reduce(operator.add, shuffled)
    assert joined(one_by_one).tobytes() == joined(expected).tobytes()


@given(VALUES)
def test_sums_are_precise_to_the_finest_grid(values: list[float]):
    total = joined(np.sum([cut(np.array(value)) for value in values], axis=0))
    exact = math.fsum(values)
    assert abs(float(total) - exact) <= len(values) * 2.0**-57 + 2.0**-52 * abs(
        exact
    )  # rounded twice


@given(st.floats(-(2.0**38), 2.0**38))
def test_a_single_value_is_kept_to_half_a_grid_point(value: float):
    back = float(joined(cut(np.array(value))))
    assert abs(back - value) <= 2.0**-57
    assert back == value or abs(value) < 1.0


def test_a_million_values_at_the_limit_are_summed_exactly():
    """As many as the module promises, each with bits in all three parts."""
    value = 2.0**39 + 2.0**8 + 3.0 + 2.0**-13
    parts = cut(np.full(2**20, value))
    assert joined(parts.sum(axis=1)) == value * 2.0**20
    odd = 0.1
    parts = cut(np.full(2**20, odd))
    assert (parts.sum(axis=1) == parts[:, 0] * 2.0**20).all()


def test_cutting_keeps_the_shape():
    assert cut(np.zeros((2, 3))).shape == (3, 2, 3)
    assert joined(np.zeros((3, 2, 3))).shape == (2, 3)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, LARGEST, -LARGEST, 1e300])
def test_what_cannot_be_summed_exactly_is_refused(value: float):
    with pytest.raises(ValueError, match="not finite or too large"):
        cut(np.array([0.0, value]))
    assert np.isfinite(joined(cut(np.array([np.nextafter(LARGEST, 0.0)]))))
