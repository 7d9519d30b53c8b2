"""Broken files are refused by an error of the library, or are good for all that comes after."""

from pathlib import Path

import pytest

from tools.fuzz.originals import Originals, originals
from tools.fuzz.trial import Outcome, fuzzed

MUTANTS = 2000  # of schedules, and of calibrations: 15 seconds; more by `python -m tools.fuzz`


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return originals(tmp_path_factory.mktemp("originals"))


def test_mutants_are_refused_or_mastered(good: Originals, tmp_path: Path):
    outcomes = fuzzed(good, tmp_path, MUTANTS)
    assert [outcome.wrong for outcome in outcomes.values()] == [{}, {}]
    for outcome in outcomes.values():  # else nothing that is accepted was tried, or nothing broken
        assert outcome.counts.total() == MUTANTS
        assert min(outcome.counts["refused"], outcome.counts["accepted"]) > MUTANTS // 20


def test_what_is_wrong_is_told():
    def fail() -> str:
        raise RecursionError("too deep\nand more")

    outcome = Outcome()
    outcome.add(b"1", fail)
    outcome.add(b"2", fail)
    outcome.add(b"3", lambda: "refused")
    assert outcome.wrong == {"RecursionError: too deep": b"1"}
    assert outcome.counts == {"wrong": 2, "refused": 1}
