"""The commands toward the exact solution: calibrate, plan, fit, evaluate."""

from pathlib import Path

import pytest
from kit.image_shell import STEPS, Shell
from smoothcache_core import Calibration, Report, Schedule


@pytest.fixture(scope="module")
def commands(dit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(model=dit_folder, folder=tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def calibration(commands: Shell) -> Path:
    """A calibration beside the exact solution, of one batch of 4 samples."""
    words = ("--batch", 4, "--verify=false", "--reference", "exact")
    return commands.calibrate("exact.safetensors", *words, samples=4, sensitivity=1)


@pytest.fixture(scope="module")
def planned(commands: Shell, calibration: Path) -> Path:
    words = ("--compute", 0.7, "--target", "denoiser", "--toward", "exact")
    return commands.plan(calibration, *words) / "denoiser-exact-compute0.7.json"


def test_how_far_the_plain_run_is_from_it_is_told(commands: Shell, calibration: Path):
    dynamics = Calibration.load(calibration).dynamics
    assert dynamics is not None
    assert dynamics.exact is not None
    said = commands.run(
        "calibrate", "--model", commands.model, "--samples", 4, "--batch", 4, "--steps", STEPS,
        "--max-lag", 3, "--sensitivity", 1, "--verify=false", "--reference", "exact",
        "--output", calibration,
    )  # fmt: skip
    away = dynamics.exact.distance(dynamics.samples)
    assert f"The plain run is {away:.2g} away from the exact solution" in said


def test_samples_are_judged_by_the_distance_that_was_promised(commands: Shell, planned: Path):
    fitted, folder = commands.folder / "fitted.json", commands.folder / "evaluation"
    sampled = ("--model", commands.model, "--batch", 4, "--samples", 4)
    said = commands.run("fit", planned, *sampled, "-o", fitted)
    assert "toward the exact solution;" in said
    assert Schedule.load(fitted).toward == "exact"
    said = commands.run("evaluate", fitted, *sampled, "--seed", 50, "-o", folder)
    assert "to exact" in said
    report = Report.load(folder / "report.json")
    row, plain = report.row("fitted"), report.row("plain")
    assert row.prediction is not None
    assert row.error is not None
    assert row.error == row.exact_rel_l2
    assert plain.exact_rel_l2 is not None
    assert row.error < plain.exact_rel_l2
    assert row.error / 3 < row.prediction.error < 3 * row.error


def test_sampling_tells_what_was_corrected(commands: Shell, calibration: Path, planned: Path):
    words = ("--compute", 1.0, "--target", "denoiser", "--toward", "exact")
    every = commands.plan(calibration, *words) / "denoiser-exact-compute1.json"
    half = Schedule.load(planned)
    computed = sum(half.rows["denoiser"])
    sampled = ("--batch", 4, "--samples", 4, "--schedule")
    said, _ = commands.sample("every", *sampled, every)
    assert f"everything computed; {STEPS} outputs corrected." in said
    said, _ = commands.sample("half", *sampled, planned)
    assert f"{computed} evaluations computed, {STEPS - computed} filled; {computed} out" in said


def test_what_was_calibrated_beside_the_plain_run_alone_is_not_planned_for_it(
    shell: Shell, calibrated: Path
):
    message = shell.refused("plan", calibrated, "--compute", 0.7, "--toward", "exact")
    assert "--reference exact" in message
