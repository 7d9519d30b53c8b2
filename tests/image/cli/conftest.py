from pathlib import Path

import pytest
from kit.image_shell import Shell


@pytest.fixture
def shell(dit_folder: Path, tmp_path: Path) -> Shell:
    return Shell(model=dit_folder, folder=tmp_path)


@pytest.fixture(scope="session")
def calibrated(dit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file of the seeds 0 and 1, with sensitivities of both."""
    shell = Shell(model=dit_folder, folder=tmp_path_factory.mktemp("calibrated"))
    return shell.calibrate(sensitivity=2)


@pytest.fixture(scope="session")
def planned(dit_folder: Path, calibrated: Path) -> Path:
    """A folder with interval-1 to interval-3, smooth-compute0.7, and denoiser-compute0.5."""
    shell = Shell(model=dit_folder, folder=calibrated.parent)
    intervals = ("--interval", 1, "--interval", 2, "--interval", 3)
    shell.plan(calibrated, *intervals, "--compute", 0.7, "--rule", "smooth")
    return shell.plan(calibrated, "--compute", 0.5, "--target", "denoiser")
