"""What happens to one site, evaluation by evaluation, and what is kept when."""

import pytest
from hypothesis import given, strategies as st
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.timeline import (
    COMPUTE,
    FILL,
    IDLE,
    REUSE,
    STORE,
    Timeline,
    timeline,
)

Terms = tuple[float, ...] | None


@st.composite
def terms_of_a_run(draw: st.DrawFn) -> list[Terms]:
    """Draw what is possible: computed first, then anything that has its outputs."""
    drawn: list[Terms] = [()]
    for _ in range(draw(st.integers(0, 9))):
        most = min(drawn.count(()), 3)
        choices = [(), None, (1.0,), (0.5,), (2.0, -1.0), (3.0, -3.0, 1.0)]
        possible = [each for each in choices if each is None or len(each) <= most]
        drawn.append(draw(st.sampled_from(possible)))
    return drawn


def test_a_timeline_by_hand():
    made = timeline([(), (), (1.0,), (2.0, -1.0), (), (0.5,), (1.0,), None, ()])
    assert made.modes == (STORE, STORE, REUSE, FILL, STORE, FILL, REUSE, IDLE, COMPUTE)
    assert made.sources == ((), (), (1,), (1, 0), (), (4,), (4,), (), ())
    assert made.last_use == (3, 3, 2, 3, 6, 5, 6, 7, 8)
    assert made.live_counts() == (1, 2, 2, 0, 1, 1, 0, 0, 0)
    assert made.terms == 2


def test_plain_reuse_has_no_terms():
    assert timeline([(), (1.0,), (), (1.0,)]).terms == 0
    assert timeline([(), (1.5,)]).terms == 1


@given(terms_of_a_run())
def test_sources_are_what_was_computed_last(terms: list[Terms]):
    made = timeline(terms)
    for evaluation, coefficients in enumerate(terms):
        computed = [e for e in reversed(range(evaluation)) if terms[e] == ()]
        assert list(made.sources[evaluation]) == computed[: len(coefficients or ())]
        assert made.weights[evaluation] == (coefficients or ())


def follow(made: Timeline, evaluations: list[int]) -> list[tuple[int, bool, list[int]]]:
    """Follow a timeline; return (evaluation, whether it was filled, what is kept after it)."""
    kept: list[int] = []
    log = []
    for evaluation in evaluations:
        if made.modes[evaluation] == IDLE:
            continue
        filled = made.modes[evaluation] in (REUSE, FILL) and bool(made.usable(evaluation, kept))
        kept = made.needed(evaluation, kept if filled else [*kept, evaluation])
        log.append((evaluation, filled, list(kept)))
    return log


@given(terms_of_a_run())
def test_followed_from_the_start_nothing_is_missing_and_nothing_is_held_too_long(
    terms: list[Terms],
):
    made, numbers = timeline(terms), timeline(terms).live_counts()
    for evaluation, filled, kept in follow(made, list(range(len(terms)))):
        assert filled == bool(terms[evaluation])
        later = {source for used in made.sources[evaluation + 1 :] for source in used}
        assert set(kept) == {source for source in later if source <= evaluation}
        assert len(kept) == numbers[evaluation]
    assert numbers[-1] == 0


@given(terms_of_a_run(), st.integers(1, 9))
def test_joined_late_combinations_wait_for_their_own_outputs(terms: list[Terms], start: int):
    made = timeline(terms)
    own: list[int] = []
    for evaluation, filled, kept in follow(made, list(range(start, len(terms)))):
        if filled and made.modes[evaluation] == FILL:
            assert set(made.sources[evaluation]) <= set(own)
        if not filled:
            own.append(evaluation)
        assert set(kept) <= set(own)
        if evaluation == len(terms) - 1:
            assert kept == []


def test_one_that_was_computed_out_of_turn_serves_the_reuses_that_follow():
    made = timeline([(), (), (1.0,), (1.0,), (2.0, -1.0), (1.0,), ()])
    log = [(2, False, [2]), (3, True, []), (4, False, [4]), (5, True, []), (6, False, [])]
    assert follow(made, [2, 3, 4, 5, 6]) == log


def test_more_terms_than_outputs_are_refused():
    with pytest.raises(
        ScheduleError, match=r"fill of 'x' has 2 terms at evaluation 2, but only 1 outputs"
    ):
        timeline([(), (1.0,), (2.0, -1.0)], "x")
    with pytest.raises(ScheduleError, match="1 terms at evaluation 0, but only 0 outputs"):
        timeline([(1.0,)])
