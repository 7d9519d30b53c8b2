"""The index of a shared folder, and what is refused of one."""

import json
from typing import Any

import pytest
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Measured
from smoothcache_core.schedule.sharing.index import Entry, Estimate, Index

ENTRY = Entry(
    name="half",
    sha256="0" * 64,
    compute=0.5,
    predicted=Estimate(error=0.01),
    measured=Measured(error=0.02, low=0.01, high=0.03, samples=8, speedup=1.9, device="a GPU"),
)


def test_an_index_is_read_as_it_was_written():
    index = Index(base_model="me/model", schedules=(ENTRY,))
    assert Index.read(index.to_json().encode(), "here") == index


def test_the_measured_error_counts_more_than_the_predicted_one():
    assert ENTRY.known == ENTRY.measured
    assert ENTRY.changed(measured=None).known == Estimate(error=0.01)


@pytest.mark.parametrize(
    "name", ["../half", "a/b", "", ".hidden", "C:half", "a\\b", "half\n", "x" * 101, "\u00e4"]
)
def test_a_name_that_leaves_the_folder_is_refused(name: str):
    document = json.loads(Index(schedules=(ENTRY,)).to_json())
    document["schedules"][0]["name"] = name
    with pytest.raises(ScheduleError, match=r"index.json of here cannot be used: .*a name has"):
        Index.read(json.dumps(document).encode(), "here")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 2}, "version 2 of the format is not known here, only 1; a newer"),
        ({"version": "1"}, "version '1' of the format"),
        ({"format": "other"}, "the format is 'smoothcache-index', got 'other'"),
        ({"schedules": []}, "schedules: .*at least 1"),
        ({"schedules": [ENTRY.model_dump(), ENTRY.model_dump()]}, "need different names"),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_what_is_no_index_of_this_version_is_refused(changed: dict[str, Any], message: str):
    document = json.loads(Index(schedules=(ENTRY,)).to_json()) | changed
    with pytest.raises(ScheduleError, match=message):
        Index.read(json.dumps(document).encode(), "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"format": ', "of here is not a JSON file"), (b"[]", "holds a list, no index")],
)
def test_a_damaged_index_is_refused(content: bytes, message: str):
    with pytest.raises(ScheduleError, match=message):
        Index.read(content, "here")
