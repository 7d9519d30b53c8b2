"""Schedules on the model hub: what huggingface_hub asks for, of a stand-in on this machine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.hub import Hub, hub_for
from kit.sharing import FRONT, HALF, QUARTER
from smoothcache_core import Schedule
from smoothcache_core.errors import OutputError, ScheduleError, SmoothCacheWarning
from smoothcache_core.schedule import Front
from smoothcache_core.schedule.sharing.index import INDEX

REPOSITORY = "me/toy-smoothcache"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_for(tmp_path, monkeypatch) as running:
        yield running


def test_what_was_pushed_is_chosen_from(hub: Hub):
    address = FRONT.push_to_hub(REPOSITORY)
    assert address.startswith(f"{hub.url}/{REPOSITORY}/commit/")
    assert list(hub.files(REPOSITORY)) == ["half.json", "quarter.json", "README.md", INDEX]
    assert hub.asked[-5:] == [
        "POST /api/repos/create",
        f"GET /api/models/{REPOSITORY}/tree/main",
        "POST /api/validate-yaml",
        f"POST /api/models/{REPOSITORY}/preupload/main",
        f"POST /api/models/{REPOSITORY}/commit/main",  # one: nobody reads half of a front
    ]
    assert Schedule.from_pretrained(REPOSITORY, speedup=3) == QUARTER
    assert Schedule.from_pretrained(REPOSITORY, error=0.05) == HALF
    loaded = Front.from_pretrained(REPOSITORY)
    assert (loaded.schedules, loaded.base_model) == (FRONT.schedules, FRONT.base_model)


def test_a_new_front_takes_the_place_of_the_old_one_and_other_files_stay(hub: Hub):
    FRONT.push_to_hub(REPOSITORY)
    hub.commit(REPOSITORY, "main", {"notes.json": b"{}", "LICENSE": b"free"})
    old = hub.branches[REPOSITORY]["main"]
    commits = len(hub.commits[REPOSITORY])
    Front(schedules={"half": HALF, "slow": QUARTER}).push_to_hub(REPOSITORY)
    assert set(hub.files(REPOSITORY)) == {
        "half.json", "slow.json", "README.md", INDEX, "notes.json", "LICENSE",
    }  # fmt: skip
    assert len(hub.commits[REPOSITORY]) == commits + 1  # written and deleted at once
    assert Schedule.from_pretrained(REPOSITORY, revision=old, name="quarter") == QUARTER


def test_a_schedule_that_is_gone_already_is_not_deleted_again(hub: Hub):
    FRONT.push_to_hub(REPOSITORY)
    del hub.files(REPOSITORY)["quarter.json"]
    HALF.push_to_hub(REPOSITORY, name="half")
    assert set(hub.files(REPOSITORY)) == {"half.json", "README.md", INDEX}


def test_a_request_leaves_the_old_front_on_its_branch(hub: Hub):
    FRONT.push_to_hub(REPOSITORY, revision="v2")
    HALF.push_to_hub(REPOSITORY, name="half", revision="v2", create_pr=True)
    assert "quarter.json" in hub.files(REPOSITORY, "v2")
    assert "quarter.json" not in hub.files(REPOSITORY, "refs/pr/1")


def test_what_was_shared_before_stays_if_its_index_cannot_be_read(hub: Hub):
    FRONT.push_to_hub(REPOSITORY)
    hub.files(REPOSITORY)[INDEX] = b"{"
    with pytest.warns(SmoothCacheWarning, match="shared before is left there.*not a JSON file"):
        HALF.push_to_hub(REPOSITORY, name="half")
    assert "quarter.json" in hub.files(REPOSITORY)
    assert Schedule.from_pretrained(REPOSITORY) == HALF


def test_only_the_index_and_what_was_chosen_are_fetched(hub: Hub):
    FRONT.push_to_hub(REPOSITORY)
    hub.asked.clear()
    Schedule.from_pretrained(REPOSITORY, name="half")
    fetched = [asked.rpartition("/")[2] for asked in hub.asked if asked.startswith("GET /me")]
    assert fetched == [INDEX, "half.json"]


def test_a_push_in_between_is_not_mixed_in(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    HALF.push_to_hub(REPOSITORY, name="one")
    old = hub.branches[REPOSITORY]["main"]
    asked: list[str] = []
    monkeypatch.setattr(hub, "asked", asked)
    Schedule.from_pretrained(REPOSITORY)
    assert next(each for each in asked if "one.json" in each).split("/")[-2] == old


def test_branches_requests_and_private_repositories_are_made(hub: Hub):
    HALF.push_to_hub(REPOSITORY, private=True, token="hf_mine")
    assert hub.settings[REPOSITORY]["visibility"] == "private"
    assert "Bearer hf_mine" in hub.tokens
    QUARTER.push_to_hub(REPOSITORY, revision="v2", name="fast")
    assert Schedule.from_pretrained(REPOSITORY) == HALF
    assert Schedule.from_pretrained(REPOSITORY, revision="v2", name="fast") == QUARTER
    commits = hub.branches[REPOSITORY]["main"]
    assert QUARTER.push_to_hub(REPOSITORY, create_pr=True).endswith("/discussions/1")
    assert hub.branches[REPOSITORY]["main"] == commits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"place": "me/none"}, "cannot read .* of me/none: there is no such repository, or it is"),
        ({"revision": "v9"}, "there is no such branch, tag or commit"),
        ({"name": "lost"}, "cannot read lost.json of .*: there is no such file"),
        ({"name": "half"}, "half.json of .* its checksum is another"),
        ({"place": "me/empty"}, f"cannot read {INDEX} of me/empty: there is no such file"),
    ],
)
def test_what_is_not_there_or_was_changed_is_told(hub: Hub, options: Any, message: str):
    lost = Front(schedules={**FRONT.schedules, "lost": QUARTER})
    lost.push_to_hub(REPOSITORY)
    del hub.files(REPOSITORY)["lost.json"]
    hub.files(REPOSITORY)["half.json"] += b"\n"
    hub.commit("me/empty", "main", {"README.md": b""})
    with pytest.raises(ScheduleError, match=message) as caught:
        Schedule.from_pretrained(**({"place": REPOSITORY} | options))
    assert "\n" not in str(caught.value)


def test_a_refused_push_names_the_reason_of_the_hub(hub: Hub):
    hub.refuses = 403, "You have no rights in the namespace of me"
    with pytest.raises(OutputError, match=f"cannot push to {REPOSITORY}: You have no rights"):
        FRONT.push_to_hub(REPOSITORY)


def test_what_was_fetched_once_is_there_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    FRONT.push_to_hub(REPOSITORY)
    Schedule.from_pretrained(REPOSITORY, name="half")
    hub.asked.clear()
    assert Schedule.from_pretrained(REPOSITORY, name="half", local_files_only=True) == HALF
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Schedule.from_pretrained(REPOSITORY, name="half") == HALF
    with pytest.raises(ScheduleError, match=r"quarter.json .* not downloaded before"):
        Schedule.from_pretrained(REPOSITORY, name="quarter", local_files_only=True)
    assert hub.asked == []


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (Schedule.from_pretrained, FRONT.push_to_hub):
        with pytest.raises(ScheduleError, match=r"pip install 'smoothcache-core\[hub\]'"):
            call(REPOSITORY)


def test_the_address_of_the_hub_is_that_of_the_environment(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    FRONT.push_to_hub(REPOSITORY)
    code = "from smoothcache_core import Schedule; Schedule.from_pretrained({!r}, speedup=3)"
    done = subprocess.run(
        [sys.executable, "-c", code.format(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any(tmp_path.joinpath("home").rglob("quarter.json"))
