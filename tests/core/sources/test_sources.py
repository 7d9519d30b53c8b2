"""Sources as values: what the list says of each, and what reads it."""

import functools

import pytest
from kit.planning import Mixture, OneStep, ToySampler
from smoothcache_core import Calibration, Schedule, calibrate, plan
from smoothcache_core.errors import ScheduleError
from smoothcache_core.planning import Limits, Planner
from smoothcache_core.schedule import Provenance
from smoothcache_core.sources import SOURCES, SourceKind

STEPS = 10
MEASURED = [kind for kind in SOURCES if kind.name not in ("block", "span")]
"""The sources of the sites that adapters name; `test_levels.py` has the others."""


@functools.cache
def calibration_of() -> Calibration:
    model = Mixture((1.0, 0.5), STEPS)
    sampler = ToySampler(model, lambda: OneStep(STEPS), "batched", samples=4)
    return calibrate(sampler.value(), seeds=(0, 1), max_lag=3, sensitivity=2, progress=False)


@functools.cache
def made_by(kind: SourceKind) -> Schedule:
    return kind.plan(calibration_of(), Limits())(0.65)


@pytest.mark.parametrize("kind", MEASURED, ids=lambda kind: kind.name)
def test_a_source_plans_by_its_name_and_knows_what_it_made(kind: SourceKind):
    assert not kind.needs(calibration_of())
    assert made_by(kind) == plan(calibration_of(), compute=0.65, target=kind.name)
    assert [other.name for other in SOURCES if other.made(made_by(kind))] == [kind.name]


def test_no_source_claims_a_schedule_from_elsewhere():
    own = Schedule(evaluations=3, rows={"attn": (1, 0, 1)}, source=Provenance(name="mine"))
    assert not any(kind.made(own) for kind in SOURCES)


def test_auto_compares_what_the_list_says():
    compared = {kind.name for kind in MEASURED if kind.compared}
    assert set(Planner(calibration_of()).candidates(0.65)) == compared


def test_names_and_titles_are_told_apart():
    assert len({kind.name for kind in SOURCES}) == len({kind.title for kind in SOURCES})
    with pytest.raises(
        ScheduleError, match=r"one of \['denoiser', .*'accumulated'\], got 'blocks'"
    ):
        plan(calibration_of(), compute=0.5, target="blocks")


def test_an_interval_out_of_reach_is_refused():
    limits = Limits(max_lag=1)
    found = plan(calibration_of(), compute=0.7, target="interval", limits=limits)
    assert found.source.settings["every"] == 2
    with pytest.raises(ScheduleError, match="out of reach with an interval of at most 2"):
        plan(calibration_of(), compute=0.3, target="interval", limits=limits)
