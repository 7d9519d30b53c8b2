"""Policies of the evaluation, on a toy that is calibrated once."""

import pytest
from kit.evaluation_toys import STEPS, Stack, Stacked
from smoothcache_core import Schedule, calibrate
from smoothcache_core.errors import ScheduleError

from tools.evaluate.policies import (
    POLICIES,
    Material,
    Steps,
    compute_of,
    least_compute,
    of_steps,
)

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGET = 0.5


@pytest.fixture(scope="module")
def material() -> Material:
    sampler = Stacked(stack=Stack(0), conditions=range(3), steps=STEPS, samples=4)
    calibration = calibrate(sampler, seeds=[0], progress=False)
    return Material(calibration=calibration, sampler=sampler, seeds=[0])


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_keeps_to_its_budget(name: str, material: Material):
    made = POLICIES[name].make(material, BUDGET)
    assert 0.0 < compute_of(made, material) <= BUDGET + 1e-9


def test_sites_and_whole_evaluations_are_extrapolated_by_the_same_places(material: Material):
    sites = POLICIES["fora+taylor"].make(material, BUDGET)
    whole = POLICIES["even+taylor"].make(material, BUDGET)
    assert isinstance(sites, Schedule)
    assert isinstance(whole, Schedule)
    assert sites.rows["layer"] == whole.rows["denoiser"]
    assert sites.fills["layer"] == whole.fills["denoiser"]


def test_reuse_needs_no_coefficients(material: Material):
    made = POLICIES["even"].make(material, BUDGET)
    assert isinstance(made, Schedule)
    assert not any(fill.terms for fill in made.fills.values())


def test_fewer_steps_take_what_the_budget_pays_for(material: Material):
    made = POLICIES["fewer-steps"].make(material, 0.45)
    assert made == Steps(4)
    assert of_steps(material.sampler, Steps(4)).evaluations == 4


def test_the_least_that_is_possible_is_found(material: Material):
    assert least_compute(POLICIES["even"].make, material) == pytest.approx(1 / STEPS)
    assert least_compute(POLICIES["fewer-steps"].make, material) == pytest.approx(2 / STEPS)


def test_what_is_never_possible_has_no_least(material: Material):
    def never(material: Material, budget: float) -> Schedule:
        raise ScheduleError("no")

    assert least_compute(never, material) is None
