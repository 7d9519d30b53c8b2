from pathlib import Path

import pytest
from kit.gradients import without_gradients
from kit.video_folders import save_open_sora, save_wan

__all__ = ["open_sora_folder", "wan_folder", "without_gradients"]


@pytest.fixture(scope="session")
def open_sora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_sora(tmp_path_factory.mktemp("models") / "open-sora")


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wan(tmp_path_factory.mktemp("models") / "wan")
