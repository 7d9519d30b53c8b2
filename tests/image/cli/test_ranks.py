"""Calibrating by several processes, from the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from kit.command_shell import said
from smoothcache_core import Calibration
from smoothcache_core.cli.ranks import Ranks, launched_ranks
from smoothcache_image.cli import app
from torch import distributed


def words(model: Path, output: Path, *, samples: int = 5, batch: int = 1) -> list[str]:
    given = ("--model", model, "--samples", samples, "--batch", batch, "--steps", 6)
    return ["calibrate", *map(str, given), "--output", str(output)]


def calibrated(model: Path, output: Path, *, samples: int = 5, batch: int = 1) -> Calibration:
    result = said(app, words(model, output, samples=samples, batch=batch))
    assert result.status == 0, result.output
    return Calibration.load(output)


LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("launch", LAUNCHERS.values(), ids=LAUNCHERS)
def test_launched_processes_write_the_file_of_one(
    launch: tuple[str, ...], dit_folder: Path, tmp_path: Path
):
    output = tmp_path / "two.safetensors"
    command = [sys.executable, "-m", *launch, "-m", "smoothcache_image", *words(dit_folder, output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 samples of 6 evaluations each") == 1
    assert "3/3" in done.stderr
    assert "2/2" not in done.stderr
    assert list(tmp_path.iterdir()) == [output]
    single = calibrated(dit_folder, tmp_path / "one.safetensors")
    assert Calibration.load(output) == single
    assert single.seeds == (0, 1, 2, 3, 4)


def test_a_process_by_itself_has_rank_0(monkeypatch: pytest.MonkeyPatch):
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "RANK": "0"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with launched_ranks() as ranks:
        assert ranks == Ranks(rank=0, world=1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with launched_ranks() as ranks:
        assert ranks == Ranks(rank=0, world=1)
        assert not distributed.is_initialized()


# ---------------------------------------------------------------------------- going on


def test_one_process_goes_on_from_the_files_of_ranks(dit_folder: Path, tmp_path: Path):
    output = tmp_path / "c.safetensors"
    calibrated(dit_folder, output, samples=2)
    output.rename(tmp_path / "c.rank0-of-2.safetensors")
    result = said(app, words(dit_folder, output, samples=3))
    assert result.status == 0, result.output
    assert "2 samples are there, 1 to go." in result.output
    assert list(tmp_path.iterdir()) == [output]
    whole = Calibration.load(output)
    assert whole == calibrated(dit_folder, tmp_path / "whole.safetensors", samples=3)


def test_a_complete_file_of_a_rank_becomes_the_whole(dit_folder: Path, tmp_path: Path):
    output = tmp_path / "c.safetensors"
    expected = calibrated(dit_folder, output, samples=2)
    output.rename(tmp_path / "c.rank0-of-2.safetensors")
    assert calibrated(dit_folder, output, samples=2) == expected
    assert list(tmp_path.iterdir()) == [output]


def test_files_of_ranks_with_other_batches_are_refused(dit_folder: Path, tmp_path: Path):
    output = tmp_path / "c.safetensors"
    calibrated(dit_folder, output, samples=4, batch=2)
    part = output.rename(tmp_path / "c.rank0-of-2.safetensors")
    before = part.read_bytes()
    result = said(app, words(dit_folder, output, samples=4))
    assert result.status == 2
    assert "rank0-of-2.safetensors': its runs are batches of 2, not of 1" in result.errors
    assert [(file, file.read_bytes()) for file in tmp_path.iterdir()] == [(part, before)]
