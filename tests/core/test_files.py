"""Files are written in one step, and JSON is laid out to be read."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from kit.helpers import ADAPTER, Toy, calibration_of, schedule_of
from smoothcache_core import Report, Sampler, calibrate, fit
from smoothcache_core.documents import json_text
from smoothcache_core.errors import OutputError
from smoothcache_core.files import check_output
from smoothcache_core.reports import save_figure, write_report
from smoothcache_core.reports.style import new_figure
from smoothcache_core.schedule import Fingerprint

resource = pytest.importorskip("resource", reason="limits the size of files")
SAVES = {"schedule": schedule_of().save, "calibration": calibration_of(np.ones((2, 2, 6))).save}


def report() -> Report:
    return Report(
        rows=(), seeds=(0,), warmup=0, num_samples=1, sample_shape=(1,), sample_dtype="float32",
        fingerprint=Fingerprint(), device="cpu", versions={}, date=datetime.now(UTC),
    )  # fmt: skip


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
    with full_disk(), pytest.raises(OutputError, match=r"cannot write '.*file': File too large"):
        save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_cannot_take_its_place_leaves_nothing(
    save: Callable[[Path], Path], tmp_path: Path
):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write '.*folder': it is a folder"):
        save(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_saving_makes_folders_and_replaces(save: Callable[[Path], Path], tmp_path: Path):
    path = tmp_path / "a" / "b" / "file"
    assert save(path) == path
    first = path.read_bytes()
    path.write_text("x" * 100_000)
    save(path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


PICTURES: dict[str, Callable[[Path], object]] = {
    "figure": lambda path: save_figure(new_figure(1, 1), path),
    "report": lambda path: write_report(report(), path.parent, pictures={path.name: b"x" * 99}),
}


@pytest.mark.parametrize("save", PICTURES.values(), ids=PICTURES)
def test_a_full_disk_leaves_no_part_of_a_picture(save: Callable[[Path], object], tmp_path: Path):
    with full_disk(), pytest.raises(OutputError, match=r"cannot write '.*': File too large"):
        save(tmp_path / "picture.png")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_new_files_have_the_mode_that_the_process_gives(
    save: Callable[[Path], Path], mask: int, mode: int, tmp_path: Path
):
    with umask(mask):
        assert save(tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_an_existing_file_keeps_its_mode(save: Callable[[Path], Path], mode: int, tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    assert save(path).stat().st_mode & 0o777 == mode
    assert path.read_bytes() != b"old"


def test_symlinks_are_followed(save: Callable[[Path], Path], tmp_path: Path):
    (tmp_path / "real").mkdir()
    for name in ("there", "not-there"):
        real, link = tmp_path / "real" / name, tmp_path / name
        link.symlink_to(real)
        if name == "there":
            real.write_text("old")
        assert save(link) == link
        assert link.is_symlink()
        assert real.read_bytes()[:1] != b"o"
    assert sorted(tmp_path.rglob("*")) == sorted(
        tmp_path / name for name in ("real", "there", "not-there", "real/there", "real/not-there")
    )


def test_a_pipe_is_written_to_and_stays_one(save: Callable[[Path], Path], tmp_path: Path):
    pipe, copy = tmp_path / "pipe", save(tmp_path / "file").read_bytes()
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="nothing reads from it"):
        save(pipe)
    check_output(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    save(pipe)
    assert os.read(reader, 2 * len(copy)) == copy
    os.close(reader)
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", pipe]


def test_an_open_file_is_written_to_by_its_name(save: Callable[[Path], Path], tmp_path: Path):
    copy = save(tmp_path / "file").read_bytes()
    with (tmp_path / "open").open("wb") as file:
        file.write(b"before ")
        file.flush()
        save(Path(f"/dev/fd/{file.fileno()}"))
    assert (tmp_path / "open").read_bytes() == b"before " + copy


def test_what_swallows_everything_stays_what_it_is(save: Callable[[Path], Path]):
    save(Path(os.devnull))
    assert Path(os.devnull).is_char_device()


IMPOSSIBLE = ["folder", "file/below", "loop", "a\0b", "x" * 300]


@pytest.fixture
def full(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_written_is_told_before_and_when_it_is_tried(
    save: Callable[[Path], Path], name: str, full: Path
):
    before = sorted(full.rglob("*"))
    with pytest.raises(OutputError, match="cannot write to '"):
        check_output(full / name)
    with pytest.raises(OutputError, match="cannot write '"):
        save(full / name)
    assert sorted(full.rglob("*")) == before


def test_trying_an_output_leaves_nothing(full: Path):
    before = sorted(full.rglob("*"))
    for name in ("file", "new", "a/b/new", "folder/new"):
        check_output(full / name)
    for name in ("folder", "new", "a/b"):
        check_output(full / name, folder=True)
    check_output(os.devnull)
    with pytest.raises(OutputError, match="is no folder"):
        check_output(full / "file", folder=True)
    assert sorted(full.rglob("*")) == before
    assert (full / "file").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_is_read_only_stays(save: Callable[[Path], Path], tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(OutputError, match="it is read-only"):
        save(path)
    assert path.read_text() == "old"


def test_a_checkpoint_is_tried_before_anything_is_sampled(tmp_path: Path):
    def never(seed: int) -> None:
        raise AssertionError(seed)

    sampler = Sampler(model=Toy(), adapter=ADAPTER, run=never)
    with pytest.raises(OutputError, match="it is a folder"):
        calibrate(sampler, seeds=[0], checkpoint=tmp_path, progress=False)
    with pytest.raises(OutputError, match="it is a folder"):
        fit(sampler, schedule_of(), seeds=[0], trials=1, checkpoint=tmp_path, progress=False)


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
