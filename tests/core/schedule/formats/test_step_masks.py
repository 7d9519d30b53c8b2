"""Masks over steps of other engines are read and written, exactly."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from smoothcache_core import Schedule, SmoothCacheWarning
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Fill

ROW = (1, 1, 0, 0, 1, 0, 1)
DOCUMENTS: dict[str, Any] = {
    "computed-list": [1, 1, 0, 0, 1, 0, 1],
    "cached-list": [0, 0, 1, 1, 0, 1, 0],
    "cache-dit": {
        "steps_computation_mask": [1, 1, 0, 0, 1, 0, 1],
        "steps_computation_policy": "static",
    },
    "sglang": {
        "cache_dit_params": {
            "scm_compute_bins": [2, 1, 1],
            "scm_cache_bins": [2, 1],
            "scm_policy": "static",
        }
    },
    "sd-cpp": "1,1,0,0,1,0,1",
}


@pytest.mark.parametrize(("name", "document"), DOCUMENTS.items())
def test_a_mask_is_written_as_the_engine_takes_it(name: str, document: Any):
    assert Schedule(evaluations=7, rows={"denoiser": ROW}).exported(name) == document


@pytest.mark.parametrize(("name", "document"), DOCUMENTS.items())
def test_a_mask_is_read_as_the_engine_means_it(name: str, document: Any):
    schedule = Schedule.imported(document, format=name)
    assert schedule.rows == {"denoiser": ROW}
    assert schedule.evaluations == 7


@pytest.mark.parametrize("name", DOCUMENTS)
@given(row=st.lists(st.integers(0, 1), max_size=30).map(lambda tail: (1, *tail)))
def test_what_is_written_is_read_as_it_was(name: str, row: tuple[int, ...]):
    schedule = Schedule(evaluations=len(row), rows={"denoiser": row})
    assert Schedule.imported(schedule.exported(name), format=name).rows == schedule.rows


@pytest.mark.parametrize("name", ["cache-dit", "sglang"])
def test_documents_that_name_themselves_are_recognised(tmp_path: Path, name: str):
    path = tmp_path / "mask.json"
    path.write_text(json.dumps(DOCUMENTS[name]))
    assert Schedule.load(path).rows == {"denoiser": ROW}


def test_bins_stand_for_what_cache_dit_makes_of_them():
    """The mask that cache-dit's source gives for its policy "slow" of 28 steps."""
    bins = {"scm_compute_bins": [8, 3, 3, 2, 1, 1], "scm_cache_bins": [1, 2, 2, 2, 3]}
    schedule = Schedule.imported({"cache_dit_params": bins}, format="sglang")
    assert "".join(map(str, schedule.rows["denoiser"])) == "1111111101110011100110010001"


def test_lists_are_not_guessed(tmp_path: Path):
    path = tmp_path / "mask.json"
    path.write_text("[1, 0, 1]")
    with pytest.raises(ScheduleError, match="not a schedule"):
        Schedule.load(path)
    assert Schedule.load(path, format="computed-list").rows == {"denoiser": (1, 0, 1)}


def test_coefficients_that_are_lost_are_told():
    fill = Fill(terms={2: (2.0, -1.0), 3: (3.0, -2.0)})
    schedule = Schedule(evaluations=7, rows={"denoiser": ROW}, fills={"denoiser": fill})
    with pytest.warns(SmoothCacheWarning, match="coefficients of this schedule are lost"):
        assert schedule.exported("cache-dit") == DOCUMENTS["cache-dit"]


def test_rows_of_sites_are_refused():
    schedule = Schedule(evaluations=2, rows={"attn": (1, 0)})
    with pytest.raises(ScheduleError, match="whole evaluations only"):
        schedule.exported("sglang")


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("computed-list", [], "a list of 0 and 1"),
        ("computed-list", [1, 2], "0 or 1, got 2"),
        ("computed-list", [1, True], "got True"),
        ("computed-list", {"attn": [1]}, "this is not a list over steps"),
        ("cached-list", [1, 0], "denoiser"),
        ("cache-dit", {"steps_computation_mask": "fast"}, "a list of 0 and 1"),
        ("cache-dit", {"attn": [1, 0]}, "this is not cache-dit's"),
        ("sglang", {"cache_dit_params": {}}, "scm_compute_bins"),
        (
            "sglang",
            {"cache_dit_params": {"scm_compute_bins": [1], "scm_cache_bins": [1, 1]}},
            "take turns",
        ),
        (
            "sglang",
            {"cache_dit_params": {"scm_compute_bins": [1, 0], "scm_cache_bins": [1]}},
            "at least 1",
        ),
        ("sd-cpp", "1,0,x", "got 'x'"),
        ("sd-cpp", [1, 0], "this is not stable-diffusion.cpp's"),
        ("smoothcache-v1", [1, 0], "this is not SmoothCache's"),
        ("nothing", [1, 0], "there is no format 'nothing'"),
    ],
)
def test_what_is_no_such_mask_is_refused(name: str, document: Any, said: str):
    with pytest.raises(ScheduleError, match=said):
        Schedule.imported(document, format=name)
