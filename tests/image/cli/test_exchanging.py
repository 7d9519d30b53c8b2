"""The commands `import` and `export`."""

import json

import pytest
import torch
from kit.image_shell import Shell
from smoothcache_core import Schedule

ROW = (1, 0, 0, 1, 0, 1)


def test_a_mask_goes_out_and_comes_back(shell: Shell):
    file = Schedule(evaluations=6, rows={"denoiser": ROW}).save(shell.folder / "half.json")
    printed = shell.run("export", file, "--format", "cache-dit")
    assert json.loads(printed)["steps_computation_mask"] == list(ROW)
    shell.run("export", file, "--format", "sd-cpp", "-o", shell.folder / "mask.txt")
    assert (shell.folder / "mask.txt").read_text() == "1,0,0,1,0,1\n"
    shell.run("import", shell.folder / "mask.txt", "--format", "sd-cpp")
    assert Schedule.load(shell.folder / "mask-imported.json").rows == {"denoiser": ROW}


def test_a_router_is_imported_and_sampled_by(shell: Shell):
    routers = {f"{i}.prob": torch.linspace(-5, 5, 4).roll(i) for i in range(6)}
    torch.save({"routers": routers}, shell.folder / "router.pt")
    words = ("--component", "attn1", "--component", "ff", "-o", shell.folder / "router.json")
    said = shell.run("import", shell.folder / "router.pt", "--format", "router", *words)
    assert "Schedule by router(threshold=0.1, policy=" in said
    schedule = Schedule.load(shell.folder / "router.json")
    assert set(schedule.rows) == {"attn1-0", "ff-0", "attn1-1", "ff-1"}
    told, _ = shell.sample("drawn", "--schedule", shell.folder / "router.json", "--samples", 1)
    assert " reused" in told


def test_files_that_exist_are_kept(shell: Shell):
    file = Schedule(evaluations=6, rows={"denoiser": ROW}).save(shell.folder / "half.json")
    kept = shell.folder / "mask.json"
    kept.write_text("mine")
    message = shell.refused("export", file, "--format", "cached-list", "-o", kept)
    assert "mask.json" in message
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("name", ["smoothcache-v1", "cache-dit", "router"])
def test_a_file_of_another_kind_is_refused_in_one_line(shell: Shell, name: str):
    (shell.folder / "list.json").write_text("[1, 0, 1]")
    message = shell.refused("import", shell.folder / "list.json", "--format", name)
    assert message.count("\n") <= 1
    assert not (shell.folder / "list-imported.json").exists()
