"""The command push, and commands that take a shared schedule where they take a file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.command_shell import Said, said
from kit.hub import Hub, hub_for
from kit.sharing import FRONT, HALF, QUARTER
from smoothcache_core import Schedule
from smoothcache_core.schedule import Front
from smoothcache_core.schedule.sharing.index import INDEX
from smoothcache_image.cli import app

REPOSITORY = "me/toy-smoothcache"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    HALF.save("half.json")
    QUARTER.save("plans/quarter.json")
    with hub_for(tmp_path, monkeypatch) as running:
        yield running


def run(*words: object) -> Said:
    return said(app, words)


def test_schedules_are_pushed_with_a_card(hub: Hub):
    words = ("push", REPOSITORY, "half.json", "plans/quarter.json", "--base-model", "me/toy")
    told = run(*words, "--message", "Two schedules", "--revision", "v1")
    assert told.status == 0, told.output
    assert f"{hub.url}/{REPOSITORY}/commit/" in told.output
    assert f"Next: smoothcache-image sample --schedule {REPOSITORY}" in told.output
    card = hub.files(REPOSITORY, "v1")["README.md"].decode()
    assert 'base_model: "me/toy"' in card
    assert f"smoothcache-image sample --schedule {REPOSITORY} --speedup 4 --model me/toy" in card
    assert Schedule.from_pretrained(REPOSITORY, revision="v1", speedup=3) == QUARTER


def test_a_folder_is_written_in_place_of_a_push_and_can_be_pushed(hub: Hub, tmp_path: Path):
    told = run("push", REPOSITORY, "half.json", "plans/quarter.json", "--output", "shared")
    assert told.status == 0, told.output
    assert "nothing was pushed" in told.output
    assert hub.asked == []
    assert Front.from_pretrained(tmp_path / "shared").schedules == FRONT.schedules
    assert run("push", REPOSITORY, "shared").status == 0
    assert hub.files(REPOSITORY)[INDEX] == (tmp_path / "shared" / INDEX).read_bytes()
    assert "already exists" in run("push", REPOSITORY, "half.json", "-o", "shared").errors


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (REPOSITORY, ("--speedup", 3)),
        (f"{REPOSITORY}@v1", ("--speedup", 3)),
        ("shared", ("--speedup", 3)),
        ("plans/quarter.json", ()),
    ],
)
def test_commands_take_a_schedule_from_wherever_it_is(
    hub: Hub, place: str, words: tuple[object, ...]
):
    for revision in (None, "v1"):
        FRONT.push_to_hub(REPOSITORY, revision=revision)
    FRONT.save_pretrained("shared")
    told = run("export", place, "--format", "computed-list", *words)
    assert (told.status, json.loads(told.output)) == (0, [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("push", "toy", "half.json"), "a repository has a name like 'user/model-smoothcache'"),
        (("push", REPOSITORY, "half.json", "plans"), "give schedules, or one folder"),
        (("push", REPOSITORY, "half.json", "half.json"), "schedules of different file names"),
        (("push", REPOSITORY, "none.json"), "cannot read schedule 'none.json'"),
        (("push", REPOSITORY, "empty"), "'empty' holds no schedules"),
        (("export", "half.json", "--format", "sd-cpp", "--speedup", 2), "not from 'half.json'"),
        (("export", "me/none", "--format", "sd-cpp"), "there is no such repository"),
        (("sample", "--speedup", 2), "--speedup chooses one of shared schedules"),
        (("evaluate", "half.json", "--speedup", 2), "not from 'half.json'"),
        (("fit", "me/none", "--speedup", 2), "there is no such repository"),
    ],
)
def test_what_cannot_be_pushed_or_found_is_told_in_a_line(
    hub: Hub, words: tuple[object, ...], message: str
):
    Path("empty").mkdir()
    told = run(*words)
    assert (told.status, told.errors.count("\n")) == (2, 1)
    assert message in told.errors


def test_what_is_made_of_a_shared_schedule_stands_in_the_working_folder():
    from smoothcache_core.cli.shared import beside

    assert beside(Path(REPOSITORY), "-fitted") == Path("toy-smoothcache-fitted.json")
    assert beside(Path("plans/half.json"), "-fitted") == Path("plans/half-fitted.json")
