import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from kit.image_shell import Shell
from smoothcache_core import Calibration, Schedule
from smoothcache_core.cli import planning
from smoothcache_core.cli.planning import smooth_plan
from smoothcache_core.planning import Planner
from smoothcache_core.sources import smooth_to_compute

# ---------------------------------------------------------------------------- budgets


def test_plan_writes_the_best_schedule_for_each(shell: Shell, calibrated: Path):
    words = ("--compute", 0.5, "--speedup", 1.25, "--error", 0.5)
    folder = shell.plan(calibrated, *words)
    found = {file.stem: Schedule.load(file) for file in folder.iterdir()}
    planner = Planner(Calibration.load(calibrated))
    assert found == {
        "auto-compute0.5": planner.to_compute(0.5),
        "auto-speedup1.25": planner.to_compute(0.8),
        "auto-error0.5": planner.to_error(0.5),
    }


@pytest.mark.parametrize("target", ["denoiser", "guidance", "site", "kind", "evaluation"])
def test_plan_skips_what_it_is_told_to(shell: Shell, calibrated: Path, target: str):
    folder = shell.plan(calibrated, "--compute", 0.7, "--target", target)
    schedule = Schedule.load(folder / f"{target}-compute0.7.json")
    whole = {"denoiser": {"denoiser"}, "guidance": {"denoiser", "guidance"}}
    if target in whole:
        assert set(schedule.rows) <= whole[target]
    else:
        assert schedule.source.settings["per"] == target
    assert schedule.compute_fraction() <= 0.7


def test_plan_fills_by_the_rule_it_is_told(shell: Shell, calibrated: Path):
    words = ("--compute", 0.7, "--target", "site", "--fill", "taylor-1")
    schedule = Schedule.load(shell.plan(calibrated, *words) / "site-taylor-1-compute0.7.json")
    assert schedule.source.settings["fill"] == "taylor-1"
    message = shell.refused("plan", calibrated, *words[:2], "--target", "smooth", *words[-2:])
    assert "'smooth' makes its own fills" in message
    message = shell.refused("plan", calibrated, "--alpha", 0.1, *words[-2:])
    assert "--fill" in message


def test_plan_keeps_to_its_limits(shell: Shell, calibrated: Path):
    words = ("--compute", 0.75, "--target", "site", "--first", 3, "--max-lag", 1, "--max-rows", 2)
    schedule = Schedule.load(shell.plan(calibrated, *words) / "site-compute0.75.json")
    assert len(set(schedule.rows.values())) <= 2
    for row in schedule.rows.values():
        assert row[:3] == (1, 1, 1)
        assert "00" not in "".join(map(str, row))
    words = ("--compute", 0.75, "--target", "denoiser", "--pin", 3, "--pin", 5)
    schedule = Schedule.load(shell.plan(calibrated, *words) / "denoiser-compute0.75.json")
    assert schedule.rows["denoiser"][3] == schedule.rows["denoiser"][5] == 1
    words = ("--compute", 0.8, "--target", "site", "--max-bytes", "12kB")
    schedule = Schedule.load(shell.plan(calibrated, *words) / "site-compute0.8.json")
    assert 0 < schedule.predicted_bytes() <= 12000


def test_plan_shows_what_to_expect(shell: Shell, calibrated: Path):
    output = shell.folder / "half.json"
    said = shell.run("plan", calibrated, "--compute", 0.5, "--output", output)
    schedule = Schedule.load(output)
    assert schedule.prediction is not None
    (line,) = [line for line in said.splitlines() if line.lstrip().startswith("half.json")]
    assert f"{schedule.compute_fraction():.3f}" in line
    assert f"{1 / schedule.compute_fraction():.2f}x" in line
    assert f"{schedule.prediction.error:.2g}" in line
    assert f"{schedule.predicted_bytes() / 1024:.3g} KiB" in line
    assert f"Written to {output}." in said


def test_tables_are_not_cut_off_where_the_screen_is_narrow(shell: Shell, calibrated: Path):
    name = f"{'long' * 30}.json"
    said = shell.run("plan", calibrated, "--interval", 2, "--output", shell.folder / name)
    (line,) = [line for line in said.splitlines() if line.lstrip().startswith(name)]
    assert re.search(r"interval .* 1\.36x .* KiB", line)


# ---------------------------------------------------------------------------- front


def test_front_shows_all_targets_and_chooses(shell: Shell, calibrated: Path):
    output = shell.folder / "front"
    said = shell.run("plan", calibrated, "--front", "--error", 0.2, "--output", output)
    (file,) = output.glob("*.json")
    assert file.name == "auto-error0.2.json"
    schedule = Schedule.load(file)
    assert schedule.prediction is not None
    assert schedule.prediction.error <= 0.2
    assert (output / "front.png").read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in said.splitlines()]
    for target in ("denoiser", "guidance", "site", "smooth"):
        assert any(target in line[:2] for line in lines)
    (chosen,) = [line for line in lines if line[:1] == ["chosen"]]
    assert f"{schedule.compute_fraction():.3f}" in chosen
    assert "keeps the predicted error within 0.2" in said


def test_front_is_shown_though_nothing_keeps_the_usual_error(
    shell: Shell, calibrated: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(planning, "FRONT_ERROR", 1e-9)
    output = shell.folder / "front"
    said = shell.run("plan", calibrated, "--front", "--output", output)
    assert "no plan keeps the predicted error within 1e-09; the least is" in said
    assert "chosen" not in said
    assert [file.name for file in output.iterdir()] == ["front.png"]
    words = ("--front", "--error", 1e-9, "--output", shell.folder / "none")
    assert "no plan keeps the predicted error" in shell.refused("plan", calibrated, *words)
    assert not (shell.folder / "none").exists()


# ---------------------------------------------------------------------------- published rules


def test_plan_writes_the_schedules_of_published_rules(shell: Shell, calibrated: Path):
    words = ("--alpha", 0.1, "--alpha", 0.25, "--compute", 0.7, "--rule", "smooth", "--interval", 2)
    folder = shell.plan(calibrated, *words, "--speedup", 1.25)
    settings = {file.stem: Schedule.load(file).source.settings for file in folder.iterdir()}
    assert settings["smooth-alpha0.1"]["alpha"] == 0.1
    assert settings["smooth-alpha0.25"]["alpha"] == 0.25
    assert settings["interval-2"] == {"every": 2}
    assert Schedule.load(folder / "smooth-compute0.7.json").compute_fraction() <= 0.7
    assert Schedule.load(folder / "smooth-speedup1.25.json").compute_fraction() <= 0.8
    assert len(settings) == 5


def test_settings_of_the_rule_are_passed_on(shell: Shell, calibrated: Path):
    words = ("--per", "site", "--strict", "--max-lag", 1)
    folder = shell.plan(calibrated, "--alpha", 0.2, *words)
    schedule = Schedule.load(folder / "smooth-site-strict-alpha0.2.json")
    assert schedule.source.settings == {
        "alpha": 0.2,
        "per": "site",
        "strict": True,
        "max_lag": 1,
    }


def test_smoothcache_reuses_up_to_three_times_unless_told_otherwise(shell: Shell):
    calibration = shell.calibrate("c.safetensors", "--max-lag", 5, samples=1)
    rows = {3: (1, 0, 0, 0, 1, 1), 5: (1, 0, 0, 0, 0, 1)}
    for words, lag in (((), 3), (("--max-lag", 5), 5)):
        folder = shell.plan(calibration, "--alpha", 15, "--force", *words)
        schedule = Schedule.load(folder / "smooth-alpha15.json")
        assert schedule.source.settings["max_lag"] == lag
        assert schedule.rows["ff"] == rows[lag]


def test_published_rules_are_given_predictions(shell: Shell, calibrated: Path):
    folder = shell.plan(calibrated, "--alpha", 0.3, "--interval", 2)
    for file in folder.iterdir():
        schedule = Schedule.load(file)
        assert schedule.prediction is not None
        assert (schedule.prediction.error > 0.0) == schedule.skips


def test_published_rules_need_no_sensitivities(shell: Shell):
    calibration = shell.calibrate(samples=1)
    shell.plan(calibration, "--compute", 0.7, "--rule", "smooth", "--interval", 2)
    message = shell.refused("plan", calibration, "--compute", 0.7)
    assert "holds no sensitivities; calibrate with --sensitivity 2" in message


def test_least_lag_that_reaches_a_budget_is_taken(shell: Shell):
    path = shell.calibrate("c.safetensors", "--max-lag", 5, samples=1)
    calibration = Calibration.load(path)
    schedules = [smooth_plan(calibration, compute) for compute in (0.8, 0.5)]
    assert [schedule.source.settings["max_lag"] for schedule in schedules] == [3, 4]
    assert schedules[1].compute_fraction() <= 0.5
    assert schedules[0] == smooth_to_compute(calibration, compute=0.8, max_lag=3)


def test_plan_writes_v1_and_maps(shell: Shell, calibrated: Path):
    output = shell.folder / "two.json"
    shell.run("plan", calibrated, "--interval", 2, "--v1", "--map", "--output", output)
    older = json.loads((shell.folder / "two.v1.json").read_text())
    assert older == {"attn1": [1, 0, 1, 0, 1, 1], "ff": [1, 0, 1, 0, 1, 1]}
    assert (shell.folder / "two.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to plan: give --compute, --speedup, --error or --front, or"),
        (("--compute", 0.01), "compute 0.01 cannot be reached"),
        (("--compute", 0.01, "--rule", "smooth"), "compute 0.01 cannot be reached"),
        (("--compute", 1.5), "compute is a fraction in (0, 1], got 1.5"),
        (("--speedup", 0.5), "speedup is at least 1, got 0.5"),
        (("--speedup", 0.5, "--rule", "smooth"), "speedup is at least 1, got 0.5"),
        (("--error", 0), "error is a relative L2 error above 0"),
        (("--error", 1e-12), "no schedule that skips anything keeps the error"),
        (("--compute", 0.5, "--target", "x"), "--target"),
        (("--compute", 0.5, "--first", 9), "first is from 1 to 6 evaluations, got 9"),
        (("--compute", 0.5, "--max-bytes", "2 quarts"), "'2 quarts' is no size"),
        (("--alpha", -1), "at least 0, got -1"),
        (("--alpha", "x"), "--alpha"),
        (("--interval", 0), "at least 1, got 0, "),
        (("--alpha", 0.1, "--max-lag", 9), "max_lag must be from 1 to 3"),
        (("--compute", 0.7, "--rule", "smooth", "--per", "site", "--v1"), "not module paths"),
        (("--compute", 0.5, "--target", "denoiser", "--v1"), "v1 knows reuse only"),
        (("--interval", 2, "--rule", "smooth"), "--rule smooth plans for --compute"),
        (("--compute", 0.5, "--per", "site"), "--per and --strict are SmoothCache's"),
        (("--interval", 2, "--strict"), "--per and --strict are SmoothCache's"),
        (("--alpha", 0.1, "--target", "site"), "not for published rules"),
        (("--interval", 2, "--max-rows", 2), "not for published rules"),
        (("--front", "--target", "site"), "--front compares all targets"),
        (("--front", "--error", 0.1, "--error", 0.2), "chooses for one --error at most"),
    ],
)
def test_an_impossible_plan_writes_nothing(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    output = shell.folder / "schedules"
    assert message in shell.refused("plan", calibrated, "--output", output, *words)
    assert not output.exists()


def test_several_schedules_are_not_one_file(shell: Shell, calibrated: Path):
    output = ("--output", shell.folder / "one.json")
    words = ("--alpha", 0.1, "--alpha", 0.2)
    assert "is one file, but 2 schedules" in shell.refused("plan", calibrated, *words, *output)
    assert "--front writes several files" in shell.refused("plan", calibrated, "--front", *output)


def test_a_file_that_is_no_calibration_is_refused(shell: Shell, planned: Path):
    schedule = planned / "interval-2.json"
    assert "is not a calibration file" in shell.refused("plan", schedule, "--alpha", 0.1)
    assert "cannot read" in shell.refused("plan", "nothing.safetensors", "--alpha", 0.1)
