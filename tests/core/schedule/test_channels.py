"""Scales and shifts of channels: a file beside the schedule, which must be the right one."""

import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.helpers import ADAPTER, Toy
from safetensors.numpy import save_file
from smoothcache_core import Schedule, attach
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Channels, Fill, Front

ROW = (1, 0, 0, 1, 0)
NUMBERS: Any = np.arange(24, dtype=np.float32).reshape(3, 2, 4) / 8
CHANNELS = Channels.made({"blocks.0.attn": [NUMBERS]})
SCHEDULE = Schedule(evaluations=5, rows={"blocks.0.attn": ROW, "ff": ROW}, channels=CHANNELS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return SCHEDULE.save(tmp_path / "half.json")


def test_numbers_are_in_a_file_of_their_own_that_the_schedule_names(path: Path):
    said = json.loads(path.read_text())["channels"]
    assert set(said) == {"file", "sha256", "sites"}
    assert {each.name for each in path.parent.iterdir()} == {path.name, said["file"]}
    again = Schedule.load(path)
    assert again == SCHEDULE
    assert again.channels is not None
    (found,) = again.channels.known().of_site["blocks.0.attn"]
    np.testing.assert_array_equal(found, NUMBERS)


def test_schedules_without_any_say_nothing_of_them():
    assert "channels" not in SCHEDULE.changed(channels=None).to_json()


def test_other_numbers_make_another_schedule():
    other = SCHEDULE.changed(channels=Channels.made({"blocks.0.attn": [NUMBERS + 1]}))
    assert other != SCHEDULE
    assert other.to_json() != SCHEDULE.to_json()
    assert "scaled and shifted: outputs of 1 sites" in repr(SCHEDULE)


def test_copies_have_the_numbers_too():
    copied: Any
    for copied in (pickle.loads(pickle.dumps(SCHEDULE)), copy.deepcopy(SCHEDULE)):
        assert copied == SCHEDULE
        assert copied.channels.content() == CHANNELS.content()


def test_a_missing_file_is_told(path: Path):
    (path.parent / CHANNELS.file).unlink()
    with pytest.raises(ScheduleError, match=f"{CHANNELS.file}.*No such file"):
        Schedule.load(path)


@pytest.mark.parametrize("content", [b"", b"else", CHANNELS.content()[:-1]])
def test_another_file_is_refused(path: Path, content: bytes):
    (path.parent / CHANNELS.file).write_bytes(content)
    with pytest.raises(ScheduleError, match="not the file that its schedule was saved with"):
        Schedule.load(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"blocks.0.attn/0": NUMBERS[..., :3]}, r"should be finite float32 of .*2, 4"),
        ({"blocks.0.attn/0": NUMBERS.astype(np.float64)}, "float64"),
        ({"blocks.0.attn/0": NUMBERS * np.nan}, "finite"),
        ({"blocks.0.attn/0": NUMBERS, "ff/0": NUMBERS}, "differ in arrays"),
        ({"blocks.0.attn/0": NUMBERS[:2]}, "skips 3 evaluations"),
    ],
)
def test_a_file_of_other_arrays_is_refused(path: Path, arrays: Any, said: str):
    save_file(arrays, path.parent / CHANNELS.file)
    content = (path.parent / CHANNELS.file).read_bytes()
    document = json.loads(path.read_text())
    document["channels"]["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(ScheduleError, match=said):
        Schedule.load(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"ff": ROW}}, "no row that skips anything"),
        ({"rows": {"blocks.0.attn": (1, 0, 1, 1, 1)}}, "skips 1 evaluations"),
        ({"fills": {"blocks.0.attn": Fill(terms={1: (0.5,)})}}, "both a fill and channels"),
    ],
)
def test_what_does_not_go_with_the_rows_is_refused(changes: Any, said: str):
    with pytest.raises(ScheduleError, match=said):
        SCHEDULE.changed(**changes)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin", ""])
def test_a_file_elsewhere_is_refused(name: str):
    document = json.loads(SCHEDULE.to_json())
    document["channels"]["file"] = name
    with pytest.raises(ScheduleError, match=r"channels\.file"):
        Schedule.imported(document)


def test_a_schedule_without_its_numbers_is_not_followed(tmp_path: Path):
    bare = Schedule.imported(json.loads(SCHEDULE.to_json()))
    assert bare != SCHEDULE
    with pytest.raises(ScheduleError, match=r"were not read; load it from its file"):
        attach(Toy(), ADAPTER, bare)
    with pytest.raises(ScheduleError, match="were not read"):
        bare.save(tmp_path / "bare.json")
    assert not list(tmp_path.iterdir())


def test_they_are_shared_with_the_schedule(tmp_path: Path):
    plain = SCHEDULE.changed(channels=None)
    folder = Front(schedules={"a": SCHEDULE, "b": plain}).save_pretrained(tmp_path / "shared")
    assert Schedule.from_pretrained(folder, name="a") == SCHEDULE
    assert Front.from_pretrained(folder).schedules == {"a": SCHEDULE, "b": plain}
    (folder / CHANNELS.file).unlink()
    with pytest.raises(ScheduleError, match=CHANNELS.file):
        Schedule.from_pretrained(folder, name="a")


def test_formats_that_know_reuse_only_refuse_them():
    kinds = Schedule(evaluations=5, rows={"ff": ROW})
    assert kinds.exported("smoothcache-v1")
    with pytest.raises(ScheduleError, match="calibrated fills"):
        SCHEDULE.exported("smoothcache-v1")
