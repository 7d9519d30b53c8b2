"""Real pipelines of diffusers, with tiny components: planned, and better than plain reuse."""

import warnings

import pytest
from kit.zoo import ENTRIES
from kit.zoo.entry import Entry
from kit.zoo.table import PAGE, known_lines
from kit.zoo.trial import tried

ALWAYS = ("PixArtSigma", "StableDiffusion3ControlNet", "CogView4", "StableAudio")
"""A sample that is tried in every run: batched passes, a ControlNet, announced ones, sounds."""

UNPLANNED = {
    "IF": "not affine",  # thresholds
    "DDIM, unconditional": "not affine",  # clips
    "QwenImage": "not affine",  # scales guided outputs to the size of conditional ones
    "QwenImageControlNet": "not affine",
    "Lumina2": "not affine",  # likewise
}

WORST = 1.1
"""Error of a plan over that of plain reuse: random weights may be curved so much that none helps
(Mochi), but then it does no harm. Most plans err a fifth of it."""

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def by_name(entry: Entry) -> str:
    return entry.name


def check(entry: Entry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = tried(entry)
    assert row.exact
    assert not any(plan.recomputed for plan in row.plans.values())
    if entry.refused is not None:  # what is refused is known target by target
        assert row.reasons.keys() == entry.refused.keys()
        assert all(reason in row.reasons[target] for target, reason in entry.refused.items())
        return
    reason = UNPLANNED.get(entry.name)
    if reason is None:
        plan = row.plans["denoiser"]
        assert plan.error < WORST * plan.naive
    else:
        assert reason in row.reasons["denoiser"]


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name in ALWAYS], ids=by_name)
def test_a_few_pipelines(entry: Entry):
    check(entry)


@pytest.mark.zoo
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name not in ALWAYS], ids=by_name)
def test_all_pipelines(entry: Entry):
    check(entry)


def test_the_page_has_all_of_them():
    assert list(known_lines(PAGE.read_text())) == [entry.name for entry in ENTRIES]
    assert len(ENTRIES) >= 90
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
