from pathlib import Path

import pytest
from kit.audio_folders import save_stable_audio, save_stable_audio_tools
from kit.audio_shell import Shell


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_audio_tools(tmp_path_factory.mktemp("models") / "digits")


@pytest.fixture
def shell(digits_folder: Path, tmp_path: Path) -> Shell:
    return Shell(model=digits_folder, folder=tmp_path)


@pytest.fixture(scope="session")
def calibrated(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file of the seeds 0 and 1, with sensitivities of both."""
    shell = Shell(model=digits_folder, folder=tmp_path_factory.mktemp("calibrated"))
    return shell.calibrate(sensitivity=2)


@pytest.fixture(scope="session")
def planned(digits_folder: Path, calibrated: Path) -> Path:
    """A folder with interval-1, interval-2 and denoiser-compute0.5."""
    shell = Shell(model=digits_folder, folder=calibrated.parent)
    shell.plan(calibrated, "--interval", 1, "--interval", 2)
    return shell.plan(calibrated, "--compute", 0.5, "--target", "denoiser")


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_audio(tmp_path_factory.mktemp("models") / "pipeline")
