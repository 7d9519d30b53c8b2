from pathlib import Path

import pytest
from kit.gradients import without_gradients
from kit.image_folders import save_dit, save_lumina2

__all__ = ["without_gradients"]


@pytest.fixture(scope="session")
def dit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dit(tmp_path_factory.mktemp("models") / "dit")


@pytest.fixture(scope="session")
def lumina2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lumina2(tmp_path_factory.mktemp("models") / "lumina2")
