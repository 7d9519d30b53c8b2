from pathlib import Path

import pytest
from kit.video_shell import PROMPTS, SIZE, Shell


@pytest.fixture
def shell(open_sora_folder: Path, tmp_path: Path) -> Shell:
    return Shell(model=open_sora_folder, folder=tmp_path)


@pytest.fixture(scope="session")
def calibrated(open_sora_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file of the seeds 0 and 1, with sensitivities of both."""
    shell = Shell(model=open_sora_folder, folder=tmp_path_factory.mktemp("calibrated"))
    return shell.calibrate("c.safetensors", *PROMPTS, *SIZE, sensitivity=2)


@pytest.fixture(scope="session")
def planned(open_sora_folder: Path, calibrated: Path) -> Path:
    """A folder with interval-1, interval-2 and denoiser-compute0.5."""
    shell = Shell(model=open_sora_folder, folder=calibrated.parent)
    shell.plan(calibrated, "--interval", 1, "--interval", 2)
    return shell.plan(calibrated, "--compute", 0.5, "--target", "denoiser")
