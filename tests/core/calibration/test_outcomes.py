"""What plans really did: the factor that comes of it, and where it is kept."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from kit.planning import Mixture, OneStep, ToySampler
from smoothcache_core import Calibration, calibrate, plan
from smoothcache_core.calibration.outcomes import Estimator, Outcome, log_factor, ordered
from smoothcache_core.errors import CalibrationError, ScheduleError

E = 12


@functools.cache
def calibration_of() -> Calibration:
    model = Mixture([1.0, 0.5], E, bend=0.2)
    sampler = ToySampler(model, lambda: OneStep(E), passes="batched", samples=3)
    return calibrate(sampler.value(), seeds=(0, 1), max_lag=4, progress=False)


def outcome(factor: float, *, estimator: Estimator = "whole", seed: int = 0) -> Outcome:
    """Return one whose error was so many times the one foretold."""
    return Outcome(
        estimator=estimator, compute=0.5, predicted=0.01, measured=0.01 * factor, seed=seed
    )


def test_the_factor_is_a_mean_of_logarithms_drawn_towards_one():
    assert log_factor((), "whole") == 0.0
    two = (outcome(2.0), outcome(8.0, seed=1))
    assert math.isclose(log_factor(two, "whole"), math.log(4.0) * 0.8)
    assert log_factor(two, "filled") == 0.0


def test_predictions_of_the_same_kind_are_multiplied_by_it_and_others_are_not():
    plain = calibration_of()
    known = replace(plain, outcomes=(outcome(3.0),))
    factor = math.exp(log_factor(known.outcomes, "whole"))
    for target, expected in (("denoiser", factor), ("guidance", factor), ("site", 1.0)):
        before, after = (plan(each, compute=0.5, target=target) for each in (plain, known))
        assert after.rows == before.rows
        assert before.prediction is not None
        assert after.prediction is not None
        for end in ("error", "low", "high"):
            ratio = getattr(after.prediction, end) / getattr(before.prediction, end)
            assert math.isclose(ratio, expected, rel_tol=1e-9)


def test_a_kind_that_errs_more_than_foretold_is_not_chosen():
    plain = calibration_of()
    best = plan(plain, compute=0.5)
    how: Estimator = "whole" if best.whole else "filled"
    warned = replace(plain, outcomes=(outcome(1e4, estimator=how),))
    assert plan(warned, compute=0.5).whole is not best.whole


def test_they_come_back_from_a_file_and_merge_in_any_order(tmp_path: Path):
    first, second = (outcome(2.0, seed=seed) for seed in (0, 1))
    known = replace(calibration_of(), outcomes=(second, first))
    loaded = Calibration.load(known.save(tmp_path / "calibration"))
    assert loaded == known
    assert loaded.outcomes == (second, first)
    assert "outcomes of plans" in repr(known)
    assert ordered((second, first, second)) == ordered((first, second))
    other = replace(calibration_of(), seeds=(77, 78), outcomes=(first,))
    one, two = Calibration.merge(known, other), Calibration.merge(other, known)
    assert one.outcomes == two.outcomes == (first, second)


@pytest.mark.parametrize("field", ["predicted", "measured"])
def test_an_error_of_zero_is_no_outcome(field: str, tmp_path: Path):
    with pytest.raises(ScheduleError, match=f"{field}: Input should be greater than 0"):
        outcome(1.0).changed(**{field: 0.0})
    known = replace(calibration_of(), outcomes=(outcome(2.0),))
    path = known.save(tmp_path / "calibration")
    content = path.read_bytes()
    assert content.count(b"0.02") == 1
    path.write_bytes(content.replace(b"0.02", b"-1.0"))
    with pytest.raises(CalibrationError, match=r"outcomes\.0\.measured"):
        Calibration.load(path)
