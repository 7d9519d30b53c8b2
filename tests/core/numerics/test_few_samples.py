"""The interval of a mean on other samples, known from a few that were fitted to."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from smoothcache_core.numerics.few_samples import interval_of_new_mean

TRIALS = 400


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("spread", [0.15, 0.4])
def test_it_holds_the_mean_of_others_nineteen_times_in_twenty(count: int, spread: float):
    generator = np.random.default_rng(count)
    true = math.exp(spread**2 / 2)
    inside = 0
    for _ in range(TRIALS):
        low, high = interval_of_new_mean(np.exp(spread * generator.standard_normal(count)).tolist())
        assert low is not None
        assert high is not None
        inside += low <= true <= high
    assert inside / TRIALS >= 0.92


@given(st.floats(1e-6, 1e3), st.integers(1, 10))
def test_it_scales_with_the_errors(scale: float, count: int):
    errors = np.linspace(0.5, 1.5, count)
    one, other = (
        interval_of_new_mean(errors.tolist()),
        interval_of_new_mean((scale * errors).tolist()),
    )
    assert other == pytest.approx([scale * end for end in one if end is not None])


def test_it_narrows_with_samples_that_agree():
    ends = [interval_of_new_mean([0.01] * count) for count in (1, 2, 4, 8, 100)]
    widths = [high / low for low, high in ends if low is not None and high is not None]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4
    assert widths[1] > 2
    assert widths[-1] < 1.1


def test_two_samples_that_agree_by_chance_are_not_believed():
    low, high = interval_of_new_mean([0.0100, 0.0101])
    assert low is not None
    assert high is not None
    assert low < 0.007
    assert high > 0.015


def test_no_error_at_all_stays_none():
    assert interval_of_new_mean([0.0, 0.0]) == (0.0, 0.0)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_of_what_is_not_finite_nothing_is_known(broken: float):
    assert interval_of_new_mean([0.1, broken]) == (None, None)
