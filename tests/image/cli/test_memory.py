"""The command line where memory decides: what is kept at a size, by which sites, and how."""

from pathlib import Path

import pytest
from kit.image_shell import Shell
from smoothcache_core import Calibration, Schedule
from smoothcache_core.schedule import Storage


@pytest.fixture
def levels(shell: Shell) -> Path:
    words = [word for each in ("parts", "blocks", "spans") for word in ("--sites", each)]
    return shell.calibrate("levels.safetensors", *words, sensitivity=1)


def test_blocks_and_spans_are_measured_planned_and_followed(shell: Shell, levels: Path):
    known = Calibration.load(levels)
    assert [*known.levels] == ["parts", "blocks", "spans"]
    said = shell.run(
        "plan", levels, "--compute", 0.7, "--target", "block", "-o", shell.folder / "b"
    )
    assert "all blocks " in said
    assert "all spans " in said
    file = shell.folder / "b" / "block-compute0.7.json"
    assert Schedule.load(file).cost == known.levels["blocks"].cost
    said, files = shell.sample("blocks", "--schedule", file, "--samples", 2)
    assert files
    shell.run(
        "evaluate", file, "--model", shell.model, "--samples", 2, "--output", shell.folder / "e"
    )
    text = (shell.folder / "e" / "report.md").read_text()
    assert "cached, predicted" in text


def test_memory_says_what_another_batch_keeps_and_plans_for_it(shell: Shell, levels: Path):
    shell.run("plan", levels, "--compute", 0.7, "--target", "site", "-o", shell.folder / "s.json")
    one, costs = Schedule.load(shell.folder / "s.json"), shell.folder / "four.json"
    words = ("memory", "--model", shell.model, "--samples", 4, "--batch", 4)
    said = shell.run(
        *words, "--calibration", levels, "--schedule", shell.folder / "s.json", "-o", costs
    )
    batch = Calibration.load(levels).samples // len(Calibration.load(levels).seeds)
    assert f"{4 // batch * one.predicted_bytes() / 1024:.3g} KiB" in said
    assert all(f"all {level} " in said for level in ("parts", "blocks", "spans"))
    words = ("--at", costs, "--compute", 0.7, "--target", "site", "-o", shell.folder / "f.json")
    shell.run("plan", levels, *words)
    four = Schedule.load(shell.folder / "f.json")
    assert four.rows == one.rows
    assert four.predicted_bytes() == 4 // batch * one.predicted_bytes()
    assert "--force" in shell.refused("memory", "--model", shell.model, "-o", costs)


def test_plans_say_how_outputs_are_kept(shell: Shell, calibrated: Path):
    words = ("--keep-on", "cpu", "--keep-as", "bfloat16")
    folder = shell.plan(calibrated, "--compute", 0.7, "--target", "site", "--interval", 2, *words)
    schedules = [Schedule.load(file) for file in folder.glob("*.json")]
    assert len(schedules) == 2
    for schedule in schedules:
        assert schedule.storage == Storage(place="cpu", dtype="bfloat16")
        plain = schedule.changed(storage=None, prediction=None)
        assert schedule.predicted_bytes() == plain.predicted_bytes() // 2
    said, files = shell.sample("kept", "--schedule", folder / "site-compute0.7.json")
    assert files
    del said
