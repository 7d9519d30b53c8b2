"""Schedules at another strength of guidance than they were planned for."""

import pytest
from hypothesis import given, strategies as st
from smoothcache_core import Schedule
from smoothcache_core.adapters import GUIDANCE
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Fill, Fingerprint, Prediction
from smoothcache_core.schedule.strengths import expectation_at, fill_at, schedule_at

FILL = Fill(terms={1: (0.9,), 2: (1.6, -0.5)}, corrections={2: (0.4, -0.2)})
ROWS = {"guidance": (1, 1, 0, 1)}
CORRECTED = Fill(terms={2: (1.6, -0.5)}, corrections={2: (0.4, -0.2)})


def planned(
    fill: Fill = CORRECTED, strength: float | None = 1.5, by: dict[float, float] | None = None
) -> Schedule:
    guidance = None if strength is None else {"guidance_scale": strength}
    return Schedule(
        evaluations=4,
        rows=ROWS,
        fills={"guidance": fill},
        fingerprint=Fingerprint(guidance=guidance),
        prediction=Prediction(error=0.01, by_guidance=by),
    )


@given(st.floats(1.1, 20.0), st.floats(1.0, 8.0))
def test_stronger_guidance_corrects_the_guided_output_by_as_much(strength: float, factor: float):
    stronger = 1 + factor * (strength - 1)
    found = fill_at(FILL, strength, stronger)
    for term, before, part in zip(found.terms[2], FILL.terms[2], (0.4, -0.2), strict=True):
        foretold = before - part
        assert (1 - stronger) * (term - foretold) == pytest.approx((1 - strength) * part)
    assert found.terms[1] == FILL.terms[1]


@pytest.mark.parametrize("strength", [1.0, 1.2, 2.5])
def test_weaker_or_equal_guidance_changes_nothing(strength: float):
    assert fill_at(FILL, 2.5, strength).terms == FILL.terms


def test_negative_guidance_corrects_the_other_way():
    assert fill_at(FILL, 2.0, -1.0).terms[2] == pytest.approx((1.2 - 0.2, -0.3 + 0.1))


@pytest.mark.parametrize(
    ("schedule", "strength"),
    [
        (planned(), None),
        (planned(), 1.5),
        (planned(strength=None), 4.0),
        (planned(Fill(terms={2: (1.6, -0.5)})), 4.0),
    ],
    ids=["strength unknown", "as planned", "plan knows no strength", "file of before"],
)
def test_a_schedule_stays_as_it_is(schedule: Schedule, strength: float | None):
    assert schedule_at(schedule, strength) is schedule


def test_a_schedule_is_rescaled_and_keeps_the_rest():
    schedule = planned()
    found = schedule_at(schedule, 2.0)
    assert found.terms(GUIDANCE)[2] == pytest.approx((1.2 + 0.2, -0.3 - 0.1))
    assert found.changed(fills=schedule.fills) == schedule


@pytest.mark.parametrize(
    ("key", "corrections", "message"),
    [
        ("guidance", {2: (0.1,)}, "has 1 corrections at evaluation 2, but 2 terms"),
        ("guidance", {3: (0.1,)}, "has 1 corrections at evaluation 3, but 0 terms"),
        ("guidance", {9: (0.1, 0.1)}, "names evaluation 9, past the end"),
        ("denoiser", {2: (0.1, 0.1)}, "'denoiser' has corrections; only 'guidance' may"),
    ],
)
def test_corrections_that_fit_no_terms_are_refused(
    key: str, corrections: dict[int, tuple[float, ...]], message: str
):
    fill = Fill(terms={2: (1.6, -0.5)}, corrections=corrections)
    with pytest.raises(ScheduleError, match=message):
        Schedule(
            evaluations=4, rows={"guidance": (1, 1, 0, 1), key: (1, 1, 0, 1)}, fills={key: fill}
        )


# ---------------------------------------------------------------------------- what to expect


def test_the_expected_error_is_told():
    told = expectation_at(planned(by={1.5: 0.01, 4.5: 0.16}), 3.0)
    assert told.endswith("planned for guidance 1.5 with a predicted error of 0.01; at 3 it is 0.04")


def test_beyond_what_was_foretold_nothing_is_promised():
    told = expectation_at(planned(by={1.5: 0.01, 4.5: 0.16}), 7.0)
    assert told.endswith("there is no prediction at 7, only from 1.5 to 4.5. Plan again at 7")


@pytest.mark.parametrize("strength", [None, 1.5])
def test_the_planned_strength_needs_no_words(strength: float | None):
    assert expectation_at(planned(by={1.5: 0.01, 4.5: 0.16}), strength) == ""


def test_nothing_is_told_where_nothing_was_foretold():
    assert expectation_at(planned(), 4.0) == ""


@pytest.mark.parametrize(
    ("scales", "strength"),
    [
        ({"guidance_scale": 4.0}, 4.0),
        ({"cfg_scale": 6.0}, 6.0),
        ({"guidance_scale": 3.5, "true_cfg_scale": 2.0}, 2.0),
        (None, None),
    ],
)
def test_the_strength_is_that_of_the_second_pass(
    scales: dict[str, float] | None, strength: float | None
):
    assert Fingerprint(guidance=scales).strength == strength
