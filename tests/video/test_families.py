"""Every family of video models through its real pipelines, exactly and without leaks."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from kit.zoo import REFUSED, VIDEO_ENTRIES, exactness
from kit.zoo.entry import Entry
from kit.zoo.families import FAMILIES, README, table
from smoothcache_core import Calibration, Sampler, calibrate
from smoothcache_core.pipelines.diffusers_shaped import known_class
from smoothcache_video import ADAPTERS, OPEN_SORA2
from smoothcache_video.adapters import PIPELINES

ALWAYS = (
    "Wan 2.2 image to video, two transformers",  # two announced calls, two caches
    "CogVideoX image to video",  # a batch of two
)
"""A sample that is tried in every run; it takes some seconds each."""

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A pipeline and what was measured of it."""

    entry: Entry
    pipe: Any
    sampler: Sampler
    known: Calibration


def _marked(entry: Entry) -> Any:
    marks = () if entry.name in ALWAYS else (pytest.mark.zoo,)
    return pytest.param(entry, id=entry.name, marks=marks)


@pytest.fixture(scope="module", params=map(_marked, VIDEO_ENTRIES))
def tried(request: pytest.FixtureRequest) -> Iterator[Tried]:
    entry: Entry = request.param
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        pipe = entry.pipeline()
        sampler = entry.sampler_of(
            pipe, lambda seed: entry.sample(pipe, seed), branches=entry.passes
        )
        known = calibrate(sampler, seeds=[0], sensitivity=0, progress=False)
        yield Tried(entry=entry, pipe=pipe, sampler=sampler, known=known)


def test_computing_everything_changes_no_bit(tried: Tried):
    exactness.check_all_computed(tried.sampler, tried.known)


def test_sites_are_reused_pass_by_pass_as_often_as_planned(tried: Tried):
    exactness.check_sites(tried.sampler, tried.known)


def test_evaluations_are_reused_pass_by_pass(tried: Tried):
    exactness.check_evaluations(tried.sampler, tried.known)


def test_runs_of_another_image_length_or_size_do_not_see_each_other(tried: Tried):
    exactness.check_leaks(tried.entry, tried.pipe, tried.sampler, tried.known)


# ---------------------------------------------------------------------------- the table


def test_the_table_of_the_readme_is_what_is_tried():
    assert table() in README.read_text(), "PYTHONPATH=tests python -m kit.zoo.families writes it"


def test_every_adapter_has_a_row():
    assert [family.adapter for family in FAMILIES] == [
        adapter for adapter in ADAPTERS if adapter is not OPEN_SORA2
    ]


def test_what_a_pipeline_is_refused_stands_among_the_limits():
    for family in FAMILIES:
        for entry in family.entries:
            assert not REFUSED.get(entry.name) or family.limits, entry.name


def test_every_pipeline_has_another_run_beside_it():
    named = {name for family in FAMILIES for name in (*family.text, *family.image)}
    assert not [each.name for each in VIDEO_ENTRIES if each.name in named and not each.others()]


@pytest.mark.zoo
def test_passes_that_nobody_announces_are_known_by_the_class_of_the_pipeline():
    """So commands name them; `sampler_of` is told, as its guidance may be off."""

    for entry in VIDEO_ENTRIES:
        if entry.passes:
            pipe = entry.pipeline()
            assert known_class(pipe, PIPELINES).passes_at(pipe, 4.0) == entry.passes, entry.name
