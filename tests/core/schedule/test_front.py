"""Shared folders on the disk: what is written, and what is refused when it is read."""

import json
from pathlib import Path

import pytest
import torch
from kit.sharing import FRONT, HALF, QUARTER
from smoothcache_core import PatternAdapter, Schedule, SitePattern, cached
from smoothcache_core.errors import ScheduleError, SmoothCacheError
from smoothcache_core.schedule import Cost, Fingerprint, Front, Measured
from smoothcache_core.schedule.sharing.index import INDEX
from torch import nn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return FRONT.save_pretrained(tmp_path / "toy-smoothcache")


def test_a_folder_holds_the_newest_front_alone_and_what_is_not_of_it(folder: Path):
    (folder / "quarter.json").write_text("changed since")
    (folder / "notes.json").write_text("{}")
    HALF.save_pretrained(folder, name="slow")
    assert {file.name for file in folder.iterdir()} == {
        "slow.json", "README.md", INDEX, "quarter.json", "notes.json",
    }  # fmt: skip
    assert Schedule.from_pretrained(folder) == HALF


def test_a_folder_is_used_like_a_repository(folder: Path):
    assert Schedule.from_pretrained(folder, speedup=3) == QUARTER
    assert Schedule.from_pretrained(str(folder), compute=0.5) == HALF
    assert Front.from_pretrained(folder).schedules == FRONT.schedules
    assert FRONT.choose(speedup=2) == HALF
    assert sorted(each.name for each in folder.iterdir()) == [
        "README.md", "half.json", "quarter.json", INDEX
    ]  # fmt: skip


def test_schedules_are_named_by_speedups_that_are_not_rounded_up():
    third = Schedule(evaluations=3, rows={"denoiser": (1, 0, 1)}, cost=HALF.cost)
    front = Front.of([third, third])
    assert list(front.schedules) == ["schedule-1.50x", "schedule-1.50x-2"]
    unknown = Schedule(evaluations=2, rows={"attn": (1, 0)})
    assert list(Front.of([unknown]).schedules) == ["schedule"]


def test_the_card_asks_for_a_whole_speedup_which_the_best_of_the_fastest_has(tmp_path: Path):
    rows = [tuple(int(k % 4 == 0) for k in range(25)), (1,) * 6 + (0,) * 19]
    cost = Cost(total=10, sites=(), output_bytes=8)
    exact, more = (Schedule(evaluations=25, rows={"denoiser": r}, cost=cost) for r in rows)
    assert exact.compute_fraction() > more.compute_fraction()
    folder = Front(schedules={"6": more}).save_pretrained(tmp_path / "shared")
    assert "speedup=4)" in (folder / "README.md").read_text()  # it is 4.17 times as fast
    slow = Front(schedules={"7": exact}).save_pretrained(tmp_path / "shared")
    assert "speedup=3)" in (slow / "README.md").read_text()


def test_the_card_says_what_the_schedules_are_for(tmp_path: Path):
    measured = Measured(error=0.012, low=0.011, high=0.013, samples=50, speedup=1.9, device="H100")
    front = Front(
        schedules=FRONT.schedules,
        base_model=FRONT.base_model,
        package="smoothcache-image",
        measured={"half": measured},
        pictures={"samples.png": b"png"},
    )
    folder = front.save_pretrained(tmp_path / "shared")
    card = (folder / "README.md").read_text()
    assert card.startswith('---\nbase_model: "me/\\"base\\""\n')  # quoted: YAML of any name
    for line in (
        "| [half](half.json) | 0.500 | 2.00x | 0.01 (0.005 to 0.02) | 0.012 (0.011 to 0.013) |",
        "- measured on 50 samples; seconds on H100",
        "- model class: Toy\\_Denoiser",
        "- solver: euler\\|x",
        "- guidance: guidance\\_scale 4",
        "- evaluations of one run: 4",
        'Schedule.from_pretrained("shared", speedup=4)',
        "from smoothcache_image import cached_pipeline",
        "smoothcache-image sample --schedule shared --speedup 4 --model",
        "![samples.png](samples.png)",
    ):
        assert line in card, card
    assert (folder / "samples.png").read_bytes() == b"png"
    assert Front.from_pretrained(folder).measured == {"half": measured}


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (Front(schedules={}), "no schedule to share"),
        (Front(schedules={"../x": HALF}), "invalid entry: name: a name has up to"),
        (
            Front(schedules={"a": HALF, "b": Schedule(evaluations=2, rows={"attn": (1, 0)})}),
            "evaluations of 'a' is 4, of 'b' 2",
        ),
        (
            Front(
                schedules={
                    "a": HALF,
                    "b": HALF.changed(fingerprint=Fingerprint(model_class="Other")),
                }
            ),
            "model_class of 'a' is 'Toy_Denoiser', of 'b' 'Other'",
        ),
        (
            Front(schedules={"a": HALF}, measured={"b": Measured(error=1.0, samples=1)}),
            r"\['b'\] are measured, but not shared",
        ),
        (Front(schedules={"a": HALF}, pictures={"../a.png": b""}), "a picture has a file name"),
    ],
)
def test_what_cannot_be_shared_together_is_refused_before_anything_is_written(
    front: Front, message: str, tmp_path: Path
):
    with pytest.raises(ScheduleError, match=message):
        front.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_changed_or_truncated_schedule_is_refused(folder: Path):
    file = folder / "half.json"
    whole = file.read_text()
    for content in (whole.replace("0.01", "0.001"), whole[:40], ""):
        file.write_text(content)
        with pytest.raises(ScheduleError, match=r"half.json of .* its checksum is another"):
            Schedule.from_pretrained(folder, name="half")


def test_what_the_checksum_is_of_is_validated_all_the_same(folder: Path):
    import hashlib

    content = b'{"format": "smoothcache-schedule", "version": 3}'
    (folder / "half.json").write_bytes(content)
    index = json.loads((folder / INDEX).read_text())
    index["schedules"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ScheduleError, match="invalid schedule: evaluations"):
        Schedule.from_pretrained(folder, name="half")


def test_what_is_no_shared_folder_is_told(folder: Path, tmp_path: Path):
    (folder / INDEX).unlink()
    with pytest.raises(ScheduleError, match=f"it has no {INDEX}, which save_pretrained writes"):
        Schedule.from_pretrained(folder)
    for place in (tmp_path / "nothing", "a/b/c", "name", "../me/x", "a b/c"):
        with pytest.raises(ScheduleError, match="is no folder, and no repository either"):
            Schedule.from_pretrained(place)
    FRONT.save_pretrained(folder)
    with pytest.raises(ScheduleError, match="has no revisions"):
        Schedule.from_pretrained(folder, name="half", revision="v1")
    (folder / "half.json").unlink()
    with pytest.raises(ScheduleError, match=r"cannot read schedule .*half.json"):
        Schedule.from_pretrained(folder, name="half")


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)

    def forward(self, hidden_states: torch.Tensor, timestep: float) -> torch.Tensor:
        return self.block(hidden_states) * timestep


def test_a_shared_schedule_of_another_model_is_refused_when_it_is_attached(folder: Path):
    adapter = PatternAdapter(
        name="toy", classes=("Toy",), patterns=(SitePattern("block", "block"),)
    )
    schedule = Schedule.from_pretrained(folder, name="half")
    with pytest.raises(SmoothCacheError, match="Toy_Denoiser"), cached(Toy(), adapter, schedule):
        pass
