"""Files are written in one step: a reader never sees half of one."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kit.helpers import calibration_of, schedule_of

resource = pytest.importorskip("resource", reason="limits the size of files")
SAVES = {"schedule": schedule_of().save, "calibration": calibration_of(np.ones((2, 2, 6))).save}


@pytest.fixture(params=SAVES)
def save(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    return SAVES[request.param]


@contextmanager
def full_disk(limit: int = 10) -> Generator[None]:
    """Let no file grow past `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    save: Callable[[Path], Path], tmp_path: Path
):
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_cannot_take_its_place_leaves_nothing(
    save: Callable[[Path], Path], tmp_path: Path
):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        save(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_saving_makes_folders_and_replaces(save: Callable[[Path], Path], tmp_path: Path):
    path = tmp_path / "a" / "b" / "file"
    assert save(path) == path
    first = path.read_bytes()
    path.write_text("x" * 100_000)
    save(path)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]
