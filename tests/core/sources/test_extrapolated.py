"""Fills of given rows by places alone."""

import pytest
from smoothcache_core.fills import reuse, taylor
from smoothcache_core.sources.extrapolated import extrapolated

ROW = (1, 1, 0, 0, 1, 0)


def test_a_line_goes_through_the_two_outputs_computed_last():
    fill = extrapolated(ROW, taylor(1))
    assert fill.terms == {
        2: (2.0, -1.0),
        3: (3.0, -2.0),
        5: pytest.approx((4 / 3, -1 / 3)),  # computed at 4 and 1
    }


def test_a_parabola_takes_as_many_outputs_as_there_are():
    fill = extrapolated((1, 0, 1, 1, 0), taylor(2))
    assert list(fill.terms) == [4]  # one output alone is reused, which needs no terms
    assert sum(fill.terms[4]) == pytest.approx(1.0)
    assert sum(c * t**2 for c, t in zip(fill.terms[4], (3, 2, 0), strict=True)) == pytest.approx(16)


def test_reuse_needs_no_terms():
    assert not extrapolated(ROW, reuse()).terms
