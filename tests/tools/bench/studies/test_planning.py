import functools
from pathlib import Path

import numpy as np
import pytest
from smoothcache_core import Calibration, Schedule, plan
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.optimize.surrogate import is_noisy, reduced_run
from smoothcache_core.planning import Limits

from tools.bench import cli
from tools.bench.studies.planning import FRONT, Size, made_up, measure, ways

pytestmark = pytest.mark.filterwarnings("ignore:only .* calibrated")  # one made-up sample
SMALL = Size(evaluations=12, blocks=3, max_lag=11)


@functools.cache
def calibration_of(size: Size) -> Calibration:
    return made_up(size)


def rows_of(schedule: Schedule, calibration: Calibration) -> list[tuple[int, ...]]:
    return [schedule.row(site) for site in calibration.sites]


def longest_fill(row: tuple[int, ...]) -> int:
    return max(map(len, "".join(map(str, row)).split("1")))


# ---------------------------------------------------------------------------- what is made up


def test_calibration_has_the_size_asked_for_and_can_be_kept(tmp_path: Path):
    calibration = calibration_of(SMALL)
    assert (calibration.evaluations, calibration.max_lag) == (12, 11)
    assert len(calibration.sites) == SMALL.sites == 6
    assert calibration.kinds == ("attn", "ff")
    assert Calibration.load(calibration.save(tmp_path / "made-up.safetensors")) == calibration
    assert made_up(SMALL) == calibration


def test_products_are_those_of_outputs():
    """Inner products of vectors are positive semi-definite, and larger for the closer ones."""
    products = calibration_of(SMALL).products
    assert products is not None
    whole = joined(products)
    later, earlier = np.maximum.outer(*[np.arange(12)] * 2), np.minimum.outer(*[np.arange(12)] * 2)
    for site in whole:
        values = np.linalg.eigvalsh(site[later, later - earlier])
        assert values[0] > -1e-12 * values[-1]
        sizes = site[:, 0]
        changed = [sizes[k:] + sizes[:-k] - 2 * site[k:, k] for k in (1, 6)]
        assert 0.0 < changed[0].mean() < changed[1].mean()


def test_errors_are_known_wherever_there_are_two_outputs():
    means = calibration_of(SMALL).mean()[:, 0]
    lags, evaluations = np.ogrid[1:12, :12]
    assert (np.isnan(means) == (lags + evaluations >= 12)).all()
    assert np.nanmean(means[:, 0]) < np.nanmean(means[:, 5])


def test_run_is_that_of_its_solver():
    dynamics = calibration_of(SMALL).dynamics
    assert dynamics is not None
    run = reduced_run(dynamics)
    np.testing.assert_allclose(
        run.latents[1:] - run.latents[:-1], -run.guided[:-1] / 12, rtol=0, atol=1e-6
    )
    assert not is_noisy(dynamics)
    assert dynamics.measured


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"evaluations": 2}, "evaluations must be at least 3, got 2"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"max_lag": 0}, "max_lag must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        Size(**wrong)


# ---------------------------------------------------------------------------- the record


def test_record_holds_every_way_at_every_compute():
    record = measure(SMALL, (0.6, 0.4), progress=False)
    *plans, front = record.rows
    assert [(row["what"], row["compute"]) for row in plans] == [
        (name, compute) for name in ways() for compute in (0.6, 0.4)
    ]
    assert all(0.0 < row["computed"] <= row["compute"] for row in plans)
    rows = {row["what"]: row["rows"] for row in plans}
    assert rows["kinds"] == 2
    assert rows["all sites alike"] == rows["whole evaluations"] == 1
    assert rows["sites"] > 2
    assert front["what"] == FRONT
    assert front["plans"] > 11
    assert all(row["seconds"] > 0.0 and row["peak_mib"] > 0 for row in record.rows)
    assert record.checks
    assert all(record.checks.values())
    assert record.settings["sites"] == 6


def test_record_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = "planning --evaluations 12 --blocks 1 --max-lag 4 --compute 0.7 --threads 0 --output"
    cli.main([*words.split(), str(tmp_path)])
    (record,) = tmp_path.glob("planning-*.json")
    assert f"written to {record}" in capsys.readouterr().out


# ---------------------------------------------------------------------------- as large as promised


@pytest.mark.slow
def test_a_hundred_evaluations_of_five_hundred_sites_are_planned_within_all_limits():
    calibration = calibration_of(Size())
    assert (calibration.evaluations, len(calibration.sites)) == (100, 500)
    limits = Limits(first=2, pinned=(50, 99), max_lag=4, max_rows=8)
    schedule = plan(calibration, compute=0.3, target="site", limits=limits)
    rows = rows_of(schedule, calibration)
    assert 0.29 < schedule.compute_fraction() <= 0.3
    assert 1 < len(set(rows)) <= 8
    for row in set(rows):
        assert row[0] == row[1] == row[50] == row[99] == 1
        assert 1 <= longest_fill(row) <= 4
    for site, row in zip(calibration.sites, rows, strict=True):
        assert all(row[i] == 0 for i in schedule.fill(site).terms)


@pytest.mark.slow
def test_a_hundred_whole_evaluations_are_planned_within_all_limits():
    limits = Limits(first=2, pinned=(50,), max_lag=5)
    schedule = plan(calibration_of(Size()), compute=0.25, target="guidance", limits=limits)
    row, guidance = schedule.row(DENOISER), schedule.row(GUIDANCE)
    assert 0.24 < schedule.compute_fraction() <= 0.25
    assert row[0] == row[1] == row[50] == guidance[0] == guidance[1] == guidance[50] == 1
    assert 1 <= longest_fill(row) <= 5
    assert set(schedule.fill(DENOISER).terms) == {i for i, one in enumerate(row) if not one}
