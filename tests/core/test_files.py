"""Files are written in one step, and JSON is laid out to be read."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kit.helpers import calibration_of, schedule_of
from smoothcache_core.documents import json_text

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


def test_json_is_indented_but_for_what_stands_on_one_line():
    value = {"a": [1, 2], "b": {"c": [1, {"d": None}], "e": {}}, "f": []}
    seen: list[tuple[str, ...]] = []

    def short(path: tuple[str, ...], part: object) -> bool:
        seen.append(path)
        return part == [1, 2]

    text = json_text(value, short)
    assert json.loads(text) == value
    assert json_text(value, lambda path, part: False) == json.dumps(value, indent=2)
    assert '"a": [1, 2],' in text.splitlines()[1]
    assert ("b", "c", "") in seen
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text({"a": float("nan")}, short)
