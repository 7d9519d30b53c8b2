"""SmoothCache's own interface: schedules applied, errors measured, without its defects."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.helpers import ROW, Toy, anatomy, noise, sample
from smoothcache_core.compat.smoothcache import (
    CalibrationHelper,
    DiffuserCacheHelper,
    DiTCacheHelper,
    SmoothCacheHelper,
)
from smoothcache_core.errors import (
    AdapterError,
    CalibrationError,
    OutputError,
    ScheduleError,
    SmoothCacheWarning,
)
from smoothcache_core.sources import scan
from torch import Tensor, nn

ROWS = {"attn": list(ROW), "ff": [1] * len(ROW)}


def helper(model: nn.Module, rows: dict[str, list[int]] | None = None) -> SmoothCacheHelper:
    return SmoothCacheHelper(model, "Block", ["attn", "ff"], rows or ROWS)


# ---------------------------------------------------------------------------- sampling


def test_components_are_reused_where_the_schedule_has_a_zero():
    toy = Toy()
    cache = helper(toy)
    cache.enable()
    sample(toy)
    cache.disable()
    assert toy.journal.delivered["blocks.1.attn"] == [0, 0, 0, 3, 3, 5]
    assert toy.journal.computed["blocks.1.ff"] == list(range(6))


def test_every_run_is_cached_and_equals_the_first():
    toy = Toy()
    with helper(toy):
        first, second = torch.stack(sample(toy)), torch.stack(sample(toy))
    assert torch.equal(first, second)
    assert toy.journal.computed["blocks.0.attn"] == [0, 3, 5, 6, 9, 11]


def test_nothing_of_a_broken_run_reaches_the_next():
    toy, other = Toy(), Toy()
    cache = helper(toy)
    cache.enable()
    toy(noise(3), 9.0)
    toy(noise(3), 7.0)
    cache.reset_state()
    with pytest.warns(SmoothCacheWarning, match="ended after 2 evaluations"):
        after = sample(toy)
    cache.disable()
    with helper(other):
        assert torch.equal(torch.stack(sample(other)), torch.stack(after))


def test_the_model_is_afterwards_as_it_was():
    toy = Toy()
    before = anatomy(toy)
    cache = helper(toy)
    cache.enable()
    cache.enable()  # the original wrapped twice, and never took the first layer off
    sample(toy)
    cache.disable()
    cache.disable()
    assert anatomy(toy) == before


def test_the_model_is_as_it_was_after_an_exception():
    toy = Toy()
    before = anatomy(toy)
    with pytest.raises(TypeError), helper(toy):
        toy(None, 9.0)
    assert anatomy(toy) == before


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]):
    toy = Toy()
    with helper(toy):
        sample(toy)
    assert capsys.readouterr() == ("", "")


def test_a_row_of_a_block_counts_more_than_that_of_its_component():
    toy = Toy()
    rows = {"attn": [1] * 6, "attn-1": [1, 0, 0, 0, 0, 1]}
    with helper(toy, rows):
        sample(toy)
    assert toy.journal.computed["blocks.0.attn"] == list(range(6))
    assert toy.journal.computed["blocks.1.attn"] == [0, 5]


def test_a_run_says_where_it_is_and_what_is_kept():
    toy, seen = Toy(), []
    cache = helper(toy)

    def look(*_: Any) -> None:
        steps = cache.current_steps["blocks.0.attn"]
        seen.append((steps, cache.is_skip_step("blocks.0.attn"), "blocks.0.attn" in cache.cache))

    toy.blocks[1].register_forward_hook(look)
    with cache:
        sample(toy)
    assert [skipped for _, skipped, _ in seen] == [not computed for computed in ROW]
    assert [steps for steps, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [kept for _, _, kept in seen][1:3] == [True, True]
    assert (cache.cache, cache.current_steps["blocks.0.attn"]) == ({}, 0)


def test_published_names_are_taken_for_those_of_the_blocks():
    with pytest.warns(SmoothCacheWarning, match="'mlp' for 'ff' is taken"):
        cache = SmoothCacheHelper(Toy(), "Block", ["attn", "ff"], {"mlp": list(ROW)})
    assert cache.schedule == {"ff": list(ROW)}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"attn2": [1, 0]}, "nothing would be cached"),
        ({}, "nothing would be cached"),
        ({"attn": [1, 0], "ff": [1, 0, 0]}, "differ in length"),
        ({"attn": [0, 1]}, "attn"),
        ({"attn": [1, 2]}, "attn"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(rows: dict[str, list[int]], said: str):
    with pytest.raises(ScheduleError, match=said):
        SmoothCacheHelper(Toy(), "Block", ["attn", "ff"], rows)


def test_rows_of_what_is_not_wrapped_are_told():
    with pytest.warns(SmoothCacheWarning, match=r"\['ff'\] of the schedule are not used"):
        SmoothCacheHelper(Toy(), "Block", ["attn"], ROWS)


def test_a_run_longer_than_the_schedule_is_refused():
    toy = Toy()
    with (
        pytest.raises(ScheduleError, match="the schedule is for 3"),
        helper(toy, {"attn": [1, 0, 1]}),
    ):
        sample(toy)


@pytest.mark.parametrize("make", [DiffuserCacheHelper, DiTCacheHelper])
def test_a_model_without_such_blocks_is_refused(make: Any):
    with pytest.raises(AdapterError, match=r"has no block of the classes .*'Block'"):
        make(Toy(), ROWS)


def test_blocks_without_such_components_are_refused():
    with pytest.raises(AdapterError, match=r"has any of \['attn2'\], but \['attn', 'ff'\]"):
        SmoothCacheHelper(Toy(), "Block", ["attn2"], {"attn2": [1, 0]})


# ---------------------------------------------------------------------------- calibration


class Drift(nn.Module):
    """A block whose output at each call of a run is listed."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values, self.place = values, -1
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.place = (self.place + 1) % len(self.values)
        return self.inner(torch.full_like(x, self.values[self.place]))


class Drifting(nn.Module):
    """A denoiser of such blocks."""

    def __init__(self, *values: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Drift(each) for each in values)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        del t
        for block in self.blocks:
            x = x + block(x)
        return x


def run(model: nn.Module, count: int) -> None:
    with torch.no_grad():
        for step in range(count):
            model(torch.ones(2, 3), torch.tensor(float(count - step)))


def calibrated(model: nn.Module, path: Path, runs: int = 1, count: int = 8, **given: Any) -> Any:
    given = {"calibration_threshold": 0.06, "schedule_length": count} | given
    calibration = CalibrationHelper(model, Drift, ["inner"], log_file=path, **given)
    calibration.enable()
    for _ in range(runs):
        run(model, count)
    calibration.disable()
    return json.loads(path.read_text())["inner"]


CHANGES = [10.0, 10.5, 20.0, 10.2, 10.3, 10.4, 10.6, 10.7]


def reference(values: list[float], alpha: float, lookahead: int = 3) -> list[int]:
    """The published scan on errors that are computed here."""
    errors = [
        [abs(values[i] - values[i + k]) / values[i + k] for i in range(len(values) - k)] + [1e9] * k
        for k in range(1, lookahead + 1)
    ]
    return list(scan(errors, alpha))


def test_calibration_gives_the_published_scan_of_the_errors(tmp_path: Path):
    row = calibrated(Drifting(CHANGES), tmp_path / "schedule.json")
    assert row == reference(CHANGES, 0.06) == [1, 0, 0, 0, 1, 0, 0, 1]


def test_errors_are_averaged_over_blocks_of_a_kind(tmp_path: Path):
    steady = [1.0] * 8  # its errors are 0, so those of the other count half
    model = Drifting(CHANGES, steady)
    row = calibrated(model, tmp_path / "schedule.json", calibration_threshold=0.015)
    assert row == reference(CHANGES, 0.03) != reference(CHANGES, 0.015)


def test_several_runs_are_averaged_and_never_mixed(tmp_path: Path):
    one = calibrated(Drifting(CHANGES), tmp_path / "one.json")
    three = calibrated(Drifting(CHANGES), tmp_path / "three.json", runs=3)
    assert one == three


def test_a_calibration_file_drives_the_helper(tmp_path: Path):
    path = tmp_path / "folder" / "schedule.json"
    calibrated(Drifting(CHANGES), path)
    model = Drifting(CHANGES)
    with SmoothCacheHelper(model, Drift, ["inner"], json.loads(path.read_text())) as cache:
        run(model, 8)
        assert sum(map(cache.is_skip_step, cache.current_steps)) == 0
    assert path.read_text().count("\n") == 3  # one line a row


def test_measuring_prints_nothing_and_leaves_the_model_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = Drifting(CHANGES)
    before = anatomy(model)
    calibrated(model, tmp_path / "schedule.json")
    after = anatomy(model)
    assert after.keys() == before.keys()
    assert [kind for kind, _ in after.values()] == [kind for kind, _ in before.values()]
    assert capsys.readouterr() == ("", "")


def test_another_number_of_evaluations_than_was_said_is_told(tmp_path: Path):
    with pytest.warns(SmoothCacheWarning, match="schedule_length is 50, but runs had 8"):
        row = calibrated(Drifting(CHANGES), tmp_path / "schedule.json", schedule_length=50)
    assert len(row) == 8


def test_without_a_run_there_is_no_schedule(tmp_path: Path):
    calibration = CalibrationHelper(Drifting(CHANGES), Drift, ["inner"], log_file=tmp_path / "x")
    calibration.enable()
    with pytest.raises(CalibrationError, match="there were no run at all"):
        calibration.disable()
    assert not (tmp_path / "x").exists()


def test_impossible_settings_are_refused_before_sampling(tmp_path: Path):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CalibrationHelper(Drifting(CHANGES), Drift, ["inner"], calibration_lookahead=0)
    with pytest.raises(OutputError):
        CalibrationHelper(Drifting(CHANGES), Drift, ["inner"], log_file=tmp_path)
    with pytest.raises(AdapterError, match="no block"):
        CalibrationHelper(Drifting(CHANGES), "Nothing", ["inner"])
