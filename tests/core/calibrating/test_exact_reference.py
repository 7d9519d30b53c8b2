"""Calibrating beside the exact solution."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.exact import NO_SOLUTION, Curved, EulerSampler
from kit.planning import Passes
from smoothcache_core import Calibration, calibrate
from smoothcache_core.calibration.exact_sums import ExactSums
from smoothcache_core.errors import CalibrationError, SamplerError
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sampling.exact_solution import exact_solution, exact_trajectory
from smoothcache_core.sampling.recording import record

STEPS = 6


def made(passes: Passes = "one", **settings: Any) -> EulerSampler:
    return EulerSampler(Curved(), STEPS, passes, **settings)


def measured(sampler: EulerSampler, **settings: Any) -> Calibration:
    given: dict[str, Any] = {"seeds": (0, 1), "max_lag": 2, "progress": False, "reference": "exact"}
    return calibrate(sampler.value(), **given | settings)


def sums_of(calibration: Calibration) -> ExactSums:
    assert calibration.dynamics is not None
    assert calibration.dynamics.exact is not None
    return calibration.dynamics.exact


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_products_are_those_of_the_exact_latents_and_outputs(passes: Passes):
    sampler = made(passes)
    sums = sums_of(measured(sampler, seeds=(3,)))
    plain = record(sampler.value(), 3)
    found = exact_solution(sampler.value(), plain)
    asked = exact_trajectory(sampler.value(), plain, found)
    own = torch.cat((found.ends, asked.outputs.transpose(0, 1).flatten(0, 1))).double()
    before = (plain.latents, plain.end[None], plain.outputs.transpose(0, 1).flatten(0, 1))
    every = torch.cat((*before, own)).double()
    expected = own @ every.T / own.shape[1] * sampler.samples
    np.testing.assert_allclose(joined(sums.products), expected.numpy(), atol=1e-9)
    assert sums.doubt(sampler.samples) == pytest.approx(found.doubt)
    assert sums.distance(sampler.samples) == pytest.approx(found.distance)


def test_everything_else_is_measured_as_beside_the_plain_run():
    exact, plain = measured(made()), measured(made(), reference="plain")
    assert exact.dynamics is not None
    without = replace(exact, dynamics=replace(exact.dynamics, exact=None))
    assert without == plain
    assert exact != plain


def test_parts_merge_to_the_whole_and_files_hold_it(tmp_path: Path):
    whole = measured(made())
    parts = [measured(made(), seeds=(seed,), sensitivity=[0, 1]) for seed in (1, 0)]
    assert Calibration.merge(*parts) == whole
    assert Calibration.load(whole.save(tmp_path / "both.safetensors")) == whole


def test_only_alike_calibrations_are_merged():
    one, other = measured(made(), seeds=(0,)), measured(made(), seeds=(1,), reference="plain")
    with pytest.raises(CalibrationError, match="calibrate all with reference"):
        Calibration.merge(one, other)


@pytest.mark.parametrize("before", ["plain", "exact"])
def test_a_file_is_continued_only_by_the_same_reference(before: str, tmp_path: Path):
    file = tmp_path / "calibration.safetensors"
    measured(made(), seeds=(0,), reference=before, checkpoint=file, sensitivity=[0])
    after = "exact" if before == "plain" else "plain"
    with pytest.raises(CalibrationError, match=f"reference='{before}' instead of '{after}'"):
        measured(made(), reference=after, checkpoint=file, sensitivity=[0])
    again = measured(made(), reference=before, checkpoint=file, sensitivity=[0])
    assert again == measured(made(), reference=before, sensitivity=[0])


def test_how_exact_the_reference_is_is_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        measured(made())
    told = [each for each in caplog.messages if "away from the exact solution" in each]
    assert len(told) == 1


def test_numbers_that_cannot_be_are_refused():
    whole = measured(made(), seeds=(0,))
    sums, dynamics = sums_of(whole), whole.dynamics
    assert dynamics is not None
    for broken in (
        ExactSums(products=sums.products[:, 1:], errors=sums.errors),
        ExactSums(products=4.0 * sums.products, errors=sums.errors),
        ExactSums(products=sums.products, errors=-sums.errors),
    ):
        with pytest.raises(CalibrationError, match=r"dynamics\.exact"):
            replace(dynamics, exact=broken)


# ---------------------------------------------------------------------------- before the runs


@pytest.mark.parametrize("kind", NO_SOLUTION)
def test_where_there_is_none_it_is_refused(kind: str):
    settings, message = NO_SOLUTION[kind]
    with pytest.raises(CalibrationError, match=message):
        measured(made(**settings))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"reference": "best"}, CalibrationError, "reference is 'plain' or 'exact'"),
        ({"sensitivity": 0}, CalibrationError, "which need sensitivities"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
):
    sampler = made()
    with pytest.raises(error, match=message):
        measured(sampler, **settings)
    assert not sampler.model.calls


def test_without_finer_runs_nothing_is_run():
    sampler = made()
    with pytest.raises(SamplerError, match="needs finer runs"):
        calibrate(sampler.value(finer=None), seeds=(0,), progress=False, reference="exact")
    assert not sampler.model.calls
