"""Rules that make a skipped output from computed ones."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, linear, residual, reuse, rounded, taylor
from smoothcache_core.numerics.least_squares import RIDGE, ridge

Array = NDArray[np.float64]
LAGS = st.lists(st.integers(1, 5), min_size=1, max_size=3)


def grams_of(vectors: Array) -> Array:
    """Return the inner products of vectors (..., k + 1, n)."""
    return np.einsum("...in,...jn->...ij", vectors, vectors)


def places_of(gaps: list[int]) -> Array:
    """Return where the wanted output is, and those computed before, `gaps` apart."""
    return np.array([0.0, *-np.cumsum(gaps).astype(float)])


def coefficients(rule: FillRule, vectors: Array, places: Array) -> Array:
    return rule.coefficients(grams_of(vectors), places)


# ---------------------------------------------------------------------------- taylor and reuse


@given(LAGS, st.lists(st.integers(-4, 4), min_size=3, max_size=3), st.integers(-9, 9))
def test_taylor_continues_polynomials_exactly_on_uneven_spacing(
    gaps: list[int], polynomial: list[int], start: int
):
    order = len(gaps) - 1
    places = start + places_of(gaps)
    values = np.polyval(polynomial[: order + 1], places)
    found = coefficients(taylor(order), np.ones((order + 2, 1)), places)
    assert found @ values[1:] == pytest.approx(values[0], abs=1e-9 * (1 + np.abs(values).max()))


@given(st.integers(1, 4), st.integers(1, 4))
def test_taylor_of_order_one_is_the_line_through_the_last_two(lag: int, gap: int):
    found = coefficients(taylor(1), np.ones((3, 1)), places_of([lag, gap]))
    np.testing.assert_allclose(found, [1.0 + lag / gap, -lag / gap])


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_taylor_of_order_two_is_newtons_series_at_even_spacing(lag: int):
    interval = 4
    found = coefficients(taylor(2), np.ones((4, 1)), places_of([lag, interval, interval]))
    newest, before, oldest = np.eye(3)
    x = lag / interval
    first, second = newest - before, newest - 2 * before + oldest
    np.testing.assert_allclose(found, newest + x * first + x * (x + 1) / 2 * second)


@pytest.mark.parametrize(("rule", "count"), [(taylor(0), 1), (reuse(), 1), (reuse(), 3)])
def test_reuse_takes_the_newest(rule: FillRule, count: int):
    vectors = np.random.default_rng(0).normal(size=(count + 1, 5))
    found = coefficients(rule, vectors, places_of([1] * count))
    assert found.tolist() == np.eye(count)[0].tolist()
    assert rule.terms == 1


def test_with_fewer_outputs_the_order_is_lower():
    found = coefficients(taylor(2), np.ones((2, 1)), places_of([3]))
    assert found.tolist() == [1.0]
    found = coefficients(taylor(2), np.ones((3, 1)), places_of([1, 1]))
    assert found.tolist() == [2.0, -1.0]


# ---------------------------------------------------------------------------- least squares


@given(st.integers(1, 3), st.integers(0, 1000))
def test_linear_is_least_squares_with_rows_that_pull_to_reuse(count: int, seed: int):
    vectors = np.random.default_rng(seed).normal(size=(count + 1, 8))
    wanted, known = vectors[0], vectors[1:]
    strength = np.sqrt(RIDGE * np.mean(np.square(known).sum(axis=1)))
    rows = np.vstack((known.T, strength * np.eye(count)))
    right = np.concatenate((wanted, strength * np.eye(count)[0]))
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    found = coefficients(linear(count), vectors, places_of([1] * count))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found, ridge(known, wanted), rtol=1e-8, atol=1e-12)


def test_linear_finds_what_made_the_output():
    random = np.random.default_rng(0)
    known = random.normal(size=(3, 50))
    made = np.array([1.4, -0.6, 0.2]) @ known
    found = coefficients(linear(3), np.vstack((made, known)), places_of([1, 1, 1]))
    np.testing.assert_allclose(found, [1.4, -0.6, 0.2], atol=1e-5)


@pytest.mark.parametrize("vectors", [np.zeros((3, 4)), np.ones((3, 4))], ids=["nothing", "alike"])
def test_linear_reuses_the_newest_where_outputs_do_not_tell(vectors: Array):
    found = coefficients(linear(2), vectors, places_of([1, 1]))
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-9)


@given(st.integers(1, 3), st.integers(0, 1000))
def test_no_other_rule_leaves_less_than_least_squares(count: int, seed: int):
    vectors = np.random.default_rng(seed).normal(size=(count + 1, 8)).cumsum(axis=0)
    grams, places = grams_of(vectors), places_of([1] * count)
    best = residual(grams, linear(count).coefficients(grams, places))
    for rule in (reuse(), taylor(count - 1)):
        assert best <= residual(grams, rule.coefficients(grams, places)) * (1 + 1e-5)


# ---------------------------------------------------------------------------- what all share


@given(st.integers(1, 3), st.integers(0, 1000))
def test_the_residual_is_that_of_the_filled_output(count: int, seed: int):
    random = np.random.default_rng(seed)
    vectors, chosen = random.normal(size=(count + 1, 8)), random.normal(size=count)
    expected = np.sqrt(np.mean(np.square(vectors[0] - chosen @ vectors[1:])))
    assert residual(grams_of(vectors) / 8, chosen) == pytest.approx(expected)


def test_the_residual_of_rounding_errors_is_not_negative():
    gram = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-16]])
    assert residual(gram - 1e-15, np.array([1.0])) == 0.0


@pytest.mark.parametrize("rule", [reuse(), taylor(1), taylor(2), linear(2), linear(3)])
def test_many_fills_at_once_are_the_same_as_one_by_one(rule: FillRule):
    count = rule.terms
    vectors = np.random.default_rng(0).normal(size=(4, 5, count + 1, 6))
    places = np.array([places_of([1 + i, 2, 3][:count]) for i in range(5)])
    together = rule.coefficients(grams_of(vectors), np.broadcast_to(places, (4, 5, count + 1)))
    assert together.shape == (4, 5, count)
    left = residual(grams_of(vectors), together)
    for s, i in np.ndindex(4, 5):
        alone = coefficients(rule, vectors[s, i], places[i])
        np.testing.assert_allclose(together[s, i], alone, rtol=1e-9, atol=1e-12)
        assert left[s, i] == pytest.approx(float(residual(grams_of(vectors[s, i]), alone)))


def test_names_and_terms_are_what_schedules_record():
    rules = [reuse(), taylor(), taylor(2), linear(), linear(3)]
    assert [rule.name for rule in rules] == [
        "reuse",
        "taylor-1",
        "taylor-2",
        "linear-2",
        "linear-3",
    ]
    assert [rule.terms for rule in rules] == [1, 2, 3, 2, 3]


@pytest.mark.parametrize("order", [-1, 3])
def test_other_orders_are_refused(order: int):
    with pytest.raises(ScheduleError, match=f"order of a Taylor fill is 0 to 2, got {order}"):
        taylor(order)


@pytest.mark.parametrize("terms", [0, 4])
def test_other_numbers_of_terms_are_refused(terms: int):
    with pytest.raises(ScheduleError, match=f"a linear fill has 1 to 3 terms, got {terms}"):
        linear(terms)


@given(st.floats(-1e6, 1e6, allow_subnormal=False))
def test_rounding_coefficients_loses_less_than_float32_does(value: float):
    assert rounded([value])[0] == pytest.approx(value, rel=2.0**-24, abs=1e-300)
    assert rounded(np.array([1 / 3, -2e7 / 3])) == (0.33333333, -6666666.7)
