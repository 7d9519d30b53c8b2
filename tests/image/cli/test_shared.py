"""Sampling by a schedule that was shared, which is the same as by its file."""

from pathlib import Path

from kit.image_shell import Shell
from smoothcache_core import Schedule
from smoothcache_core.schedule import Front


def test_a_shared_schedule_samples_as_its_file_does(shell: Shell, planned: Path):
    files = [planned / f"{name}.json" for name in ("interval-2", "interval-3")]
    plans = {file.stem: Schedule.load(file) for file in files}
    shared = Front(schedules=plans).save_pretrained(shell.folder / "shared")
    by_file = shell.sample("a", "--schedule", files[1])
    fastest = plans["interval-3"].predicted_speedup()
    by_speedup = shell.sample("b", "--schedule", shared, "--speedup", f"{fastest - 0.01:.2f}")
    assert by_speedup[1] == by_file[1]
    refused = shell.refused("sample", "--model", shell.model, "--schedule", shared)
    assert "has several schedules: say which" in refused
