"""Interpolating a path while it is walked."""

import math

import numpy as np
import pytest
from smoothcache_core.numerics.local_cubic import LocalCubic


def walked(places: list[float], wanted: list[float]) -> dict[float, float]:
    cubic = LocalCubic[float](wanted, 1e-9)
    for place in places:
        cubic.add(place, math.exp(place))
    return cubic.end()


def test_places_that_the_path_passes_are_given_exactly():
    assert walked([3.0, 2.0, 1.0, 0.0], [2.0, 0.0]) == {2.0: math.exp(2.0), 0.0: 1.0}


@pytest.mark.parametrize("falling", [True, False])
def test_a_cubic_is_met_at_any_place_between(falling: bool):
    places = sorted([0.0, 0.5, 1.5, 2.0, 3.0, 4.0], reverse=falling)
    cubic = LocalCubic[float]([0.2, 1.7, 3.9], 1e-9)
    for place in places:
        cubic.add(place, place**3 - 2.0 * place)
    found = cubic.end()
    assert {k: pytest.approx(k**3 - 2.0 * k) for k in (0.2, 1.7, 3.9)} == found


def test_the_error_is_of_fourth_order_in_the_distance_of_points():
    wanted = [0.111, 0.505, 0.777]
    worst = []
    for count in (10, 20, 40):
        found = walked(np.linspace(1.0, 0.0, count + 1).tolist(), wanted)
        worst.append(max(abs(found[w] - math.exp(w)) for w in wanted))
    assert worst[0] < 1e-5
    assert worst[1] < worst[0] / 8
    assert worst[2] < worst[1] / 8


def test_what_is_beyond_the_ends_is_missing():
    assert walked([3.0, 2.0, 1.0], [3.5, 2.5, 0.5]).keys() == {2.5}


def test_of_a_place_that_is_passed_twice_the_later_point_counts():
    cubic = LocalCubic[float]([1.0], 1e-9)
    for place, point in ((2.0, 4.0), (1.0, 7.0), (1.0, 1.0), (0.0, 0.0)):
        cubic.add(place, point)
    assert cubic.end() == {1.0: 1.0}
