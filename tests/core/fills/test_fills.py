"""The list of fill rules, and finding one by its name."""

import numpy as np
import pytest
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FILLS, FillRule, fill_named, linear, taylor
from smoothcache_core.schedule.fill import MOST_TERMS


@pytest.mark.parametrize("rule", FILLS, ids=lambda rule: rule.name)
def test_every_rule_is_found_by_its_name_and_gives_as_many_coefficients(rule: FillRule):
    assert fill_named(rule.name) is rule
    assert 1 <= rule.terms <= MOST_TERMS
    vectors = np.random.default_rng(0).normal(size=(rule.terms + 1, 9))
    places = -np.arange(rule.terms + 1.0)
    found = rule.coefficients((vectors @ vectors.T)[None], places[None])
    assert found.shape == (1, rule.terms)


def test_names_are_those_of_the_functions():
    assert fill_named("linear-2").name == linear(2).name
    assert fill_named("taylor-1").terms == taylor(1).terms
    assert len({rule.name for rule in FILLS}) == len(FILLS)


@pytest.mark.parametrize("name", ["taylor", "linear-4", "taylor-3", ""])
def test_an_unknown_name_is_refused_with_those_that_there_are(name: str):
    with pytest.raises(ScheduleError, match=rf"reuse, linear-1, .*taylor-2, got '{name}'"):
        fill_named(name)
