"""Schedules as values and as files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from kit.helpers import ROW, STEPS
from smoothcache_core import Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Cost, Fingerprint, Provenance, SiteCost
from smoothcache_core.schedule.provenance import Prediction
from smoothcache_core.schedule.schedule import Fill

SITE = Site(path="blocks.3.attn", kind="attn", block=3)
GOLDEN = """\
{
  "format": "smoothcache-schedule",
  "version": 3,
  "evaluations": 6,
  "rows": {
    "attn": [1, 0, 0, 1, 0, 1],
    "ff-3": [1, 1, 1, 1, 1, 0],
    "blocks.7.ff": [1, 1, 1, 1, 1, 1]
  },
  "fills": {
    "attn": {"terms": {"2": [0.5], "4": [1.75, -0.75]}, "inputs": {}, "anchors": {}}
  },
  "source": {
    "name": "smooth",
    "settings": {
      "alpha": 0.18,
      "max_lag": 3,
      "per": "kind",
      "strict": false
    },
    "seeds": [
      0,
      1
    ]
  },
  "fingerprint": {
    "model_class": "Toy",
    "evaluations": 6,
    "timesteps": [
      9.0,
      7.0,
      5.0,
      4.0,
      2.0,
      1.0
    ],
    "branches": [
      "cond",
      "uncond"
    ],
    "versions": {
      "torch": "2.11.0"
    }
  },
  "cost": {
    "total": 10,
    "sites": [
      {
        "path": "blocks.3.attn",
        "kind": "attn",
        "block": 3,
        "macs": 4,
        "bytes": 96
      }
    ],
    "output_bytes": 0
  },
  "prediction": {
    "error": 0.125,
    "low": 0.1,
    "measured": true,
    "bytes": 4096
  }
}
"""
VERSION_2 = """\
{
  "format": "smoothcache-schedule",
  "version": 2,
  "evaluations": 6,
  "rows": {
    "attn": [1, 0, 0, 1, 0, 1],
    "ff-3": [1, 1, 1, 1, 1, 0],
    "blocks.7.ff": [1, 1, 1, 1, 1, 1]
  },
  "fill": "reuse",
  "source": {
    "name": "smooth",
    "settings": {
      "alpha": 0.18,
      "max_lag": 3,
      "per": "kind",
      "strict": false
    },
    "seeds": [
      0,
      1
    ]
  },
  "fingerprint": {
    "model_class": "Toy",
    "evaluations": 6,
    "timesteps": [
      9.0,
      7.0,
      5.0,
      4.0,
      2.0,
      1.0
    ],
    "branches": [
      "cond",
      "uncond"
    ],
    "versions": {
      "torch": "2.11.0"
    }
  },
  "cost": {
    "total": 10,
    "sites": [
      {
        "path": "blocks.3.attn",
        "kind": "attn",
        "block": 3,
        "macs": 4,
        "bytes": 96
      }
    ]
  }
}
"""
FULL = Schedule(
    evaluations=6,
    rows={"attn": ROW, "ff-3": (1, 1, 1, 1, 1, 0), "blocks.7.ff": (1,) * 6},
    fills={"attn": Fill(terms={2: (0.5,), 4: (1.75, -0.75)})},
    source=Provenance(
        name="smooth",
        settings={"alpha": 0.18, "max_lag": 3, "per": "kind", "strict": False},
        seeds=(0, 1),
    ),
    fingerprint=Fingerprint(
        model_class="Toy",
        evaluations=6,
        timesteps=STEPS,
        branches=("cond", "uncond"),
        versions={"torch": "2.11.0"},
    ),
    cost=Cost(
        total=10,
        sites=(SiteCost(path="blocks.3.attn", kind="attn", block=3, macs=4, bytes=96),),
    ),
    prediction=Prediction(error=0.125, low=0.1, measured=True, bytes=4096),
)
REUSE_ONLY = FULL.changed(fills={}, prediction=None)


def rows(evaluations: int, keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    row = st.lists(st.integers(0, 1), min_size=evaluations - 1, max_size=evaluations - 1)
    return st.dictionaries(keys, row.map(lambda rest: [1, *rest]), min_size=1, max_size=5)


def fills(evaluations: int) -> st.SearchStrategy[Fill]:
    terms = st.tuples(st.floats(allow_nan=False, allow_infinity=False))
    places = st.dictionaries(st.integers(1, evaluations - 1), terms, max_size=3)
    return st.builds(Fill, terms=places)


# keys that a careless writer of files would trip over are among them
TEXTS = st.text(min_size=1) | st.sampled_from(["@row0@", '"@row1@"', "a\n", "\\", "rows", "é"])
KEYS = TEXTS.filter(lambda key: key not in ("denoiser", "guidance"))
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text() | st.just("@row0@")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


# ---------------------------------------------------------------------------- files


def test_saved_bytes_are_golden(tmp_path: Path):
    assert FULL.save(tmp_path / "schedule.json").read_bytes() == GOLDEN.encode()
    assert Schedule.load(tmp_path / "schedule.json") == FULL


def test_files_of_version_2_load(tmp_path: Path):
    path = tmp_path / "schedule.json"
    path.write_text(VERSION_2)
    assert Schedule.load(path) == REUSE_ONLY


def test_version_2_has_no_fill_but_reuse(tmp_path: Path):
    path = tmp_path / "schedule.json"
    path.write_text(VERSION_2.replace('"reuse"', '"taylor"'))
    with pytest.raises(ScheduleError, match="fill is 'reuse' in version 2, got 'taylor'"):
        Schedule.load(path)


@given(st.data())
def test_load_gives_what_was_saved(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    evaluations = data.draw(st.integers(2, 8))
    settings = data.draw(st.dictionaries(KEYS, SCALARS | NUMBERS))
    schedule = Schedule(
        evaluations=evaluations,
        rows=data.draw(rows(evaluations, KEYS)),
        fills=data.draw(st.dictionaries(KEYS, fills(evaluations), max_size=3)),
        prediction=data.draw(st.sampled_from([None, FULL.prediction])),
        source=Provenance(name=data.draw(KEYS), settings=settings, seeds=(3, 1)),
        fingerprint=Fingerprint(
            solver=data.draw(st.none() | KEYS),
            timesteps=tuple(data.draw(st.lists(NUMBERS, min_size=1))),
            latent_shape=(4, 8, 8),
        ),
        cost=data.draw(st.sampled_from([None, FULL.cost])),
    )
    path = tmp_path_factory.getbasetemp() / "schedule.json"
    loaded = Schedule.load(schedule.save(path))
    assert loaded == schedule
    kinds = [type(value) for value in loaded.source.settings.values()]
    assert kinds == [type(value) for value in settings.values()]


@given(st.data())
def test_v1_comes_back_as_it_was(data: st.DataObject):
    evaluations = data.draw(st.integers(1, 8))
    flat = data.draw(rows(evaluations, KEYS.filter(lambda key: "." not in key)))
    schedule = Schedule.imported(flat)
    assert schedule.exported("smoothcache-v1") == flat
    assert list(schedule.exported("smoothcache-v1")) == list(flat)
    assert (schedule.evaluations, schedule.source.name) == (evaluations, "v1")


def test_v1_files_load(tmp_path: Path):
    path = tmp_path / "50-N-3.json"
    path.write_text('{"attn": [1, 0, 1], "mlp-3": [1, 1, 0]}')
    schedule = Schedule.load(path)
    assert schedule == Schedule.imported({"attn": [1, 0, 1], "mlp-3": [1, 1, 0]})
    assert schedule.row(SITE) == (1, 0, 1)


def test_v1_cannot_name_modules():
    with pytest.raises(ScheduleError, match=r"not module paths like 'blocks.7.ff'"):
        REUSE_ONLY.exported("smoothcache-v1")


def test_v1_knows_no_fills():
    with pytest.raises(ScheduleError, match="v1 knows reuse only"):
        FULL.exported("smoothcache-v1")


def test_an_unknown_format_is_refused():
    with pytest.raises(ScheduleError, match=r"no format 'v1', but \['smoothcache-v1'\]"):
        REUSE_ONLY.exported("v1")
    with pytest.raises(ScheduleError, match="a list is no schedule in any known format"):
        Schedule.imported([1, 0])


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"attn": [1, 0], "mlp": [1, 0, 0]}, r"rows differ in length: {'attn': 2, 'mlp': 3}"),
        ({"attn": "10"}, "'attn' is not a list"),
        ({"attn": {"0": 1}}, "'attn' is not a list"),
        ({"attn": [1, 2]}, r"rows.attn.1: Input should be 0 or 1"),
        ({"attn": [0, 1]}, "row 'attn' reuses at the first evaluation"),
        ({"attn": []}, "evaluations: Input should be greater than 0"),
        ({}, "evaluations: Input should be greater than 0"),
    ],
)
def test_wrong_v1_is_refused(flat: Any, message: str, tmp_path: Path):
    with pytest.raises(ScheduleError, match=message):
        Schedule.imported(flat)
    path = tmp_path / "v1.json"
    path.write_text(json.dumps(flat))
    with pytest.raises(ScheduleError, match=message):
        Schedule.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1, 0]", "holds a list, not a schedule"),
        (b'"attn"', "holds a str, not a schedule"),
    ],
)
def test_what_is_no_schedule_file_is_refused(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "schedule.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=f"schedule.json' {message}"):
        Schedule.load(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ScheduleError, match=r"cannot read schedule .*No such file"):
        Schedule.load(tmp_path / "nothing.json")


# ---------------------------------------------------------------------------- validation

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "short": ({"rows": {"ff": [1, 0]}}, "row 'ff' has 2 entries, but the schedule has 3 eval"),
    "long": ({"rows": {"ff": [1, 0, 0, 0]}}, "row 'ff' has 4 entries, but the schedule has 3 eval"),
    "first reused": ({"rows": {"ff": [0, 1, 1]}}, "row 'ff' reuses at the first evaluation"),
    "no rows": ({"rows": {}}, "at least one row"),
    "two": ({"rows": {"ff": [1, 2, 0]}}, "rows.ff.1: Input should be 0 or 1"),
    "negative": ({"rows": {"ff": [1, -1, 0]}}, "rows.ff.1: Input should be 0 or 1"),
    "half": ({"rows": {"ff": [1, 0.5, 0]}}, "rows.ff.1: Input should be 0 or 1"),
    "text": ({"rows": {"ff": [1, "0", 0]}}, "rows.ff.1: Input should be 0 or 1"),
    "null": ({"rows": {"ff": [1, None, 0]}}, "rows.ff.1: Input should be 0 or 1"),
    "zero evaluations": ({"evaluations": 0}, "evaluations: Input should be greater than 0"),
    "part of an evaluation": ({"evaluations": 2.5}, "evaluations: Input should be a valid integer"),
    "extra field": ({"alpha": 0.1}, "alpha: Extra inputs are not permitted"),
    "extra source": ({"source": {"name": "x", "why": 1}}, "source.why: Extra inputs are not"),
    "extra print": ({"fingerprint": {"model": "x"}}, "fingerprint.model: Extra inputs are not"),
    "format": ({"format": "other"}, "format: Input should be 'smoothcache-schedule'"),
    "version": ({"version": 4}, "version: Input should be 3"),
    "fill of version 2": ({"fill": "reuse"}, "fill: Extra inputs are not permitted"),
    "fill past the end": ({"fills": {"ff": {"terms": {3: [1]}}}}, "names evaluation 3, past the"),
    "inputs past the end": (
        {"rows": {"denoiser": [1, 0, 1]}, "fills": {"denoiser": {"terms": {}, "inputs": {3: 1}}}},
        "fill 'denoiser' names evaluation 3, past the end",
    ),
    "negative evaluation": ({"fills": {"ff": {"terms": {-1: [1]}}}}, "fills.ff.terms.-1"),
    "no terms": ({"fills": {"ff": {"terms": {1: []}}}}, "fills.ff.terms.1: Tuple should have at"),
    "four terms": ({"fills": {"ff": {"terms": {2: [1] * 4}}}}, "fills.ff.terms.2: Tuple should"),
    "infinite term": ({"fills": {"ff": {"terms": {1: [float("inf")]}}}}, "finite number"),
    "too many terms": (
        {"fills": {"ff": {"terms": {1: [2, -1]}}}},
        "fill 'ff' has 2 terms at evaluation 1, but only 1 outputs are computed before it",
    ),
    "inputs of a site": (
        {"fills": {"ff": {"terms": {}, "inputs": {1: 0.5}}}},
        "fill 'ff' has inputs; only 'denoiser' may use the latent",
    ),
    "denoiser and site": (
        {"rows": {"ff": [1, 0, 1], "denoiser": [1, 0, 1]}},
        r"row 'denoiser' is of the whole model .* here \['ff'\]",
    ),
    "fingerprint": ({"fingerprint": {"evaluations": 4}}, "is 3, but the fingerprint says 4"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_content_is_refused(change: Mapping[str, Any], message: str, tmp_path: Path):
    content = {"format": "smoothcache-schedule", "evaluations": 3, "rows": {"ff": [1, 0, 1]}}
    assert Schedule(**content).rows == {"ff": (1, 0, 1)}
    with pytest.raises(ScheduleError, match=message):
        Schedule(**{**content, **change})
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(ScheduleError, match=message):
        Schedule.load(path)


@pytest.mark.parametrize("missing", ["evaluations", "rows"])
def test_missing_fields_are_refused(missing: str):
    content: dict[str, Any] = {"evaluations": 2, "rows": {"ff": (1, 0)}}
    del content[missing]
    with pytest.raises(ScheduleError, match=f"{missing}: Field required"):
        Schedule(**content)


def test_truth_values_count_as_numbers():
    """`true` and `false` are what other tools write."""
    schedule = Schedule.imported({"attn": [True, False, 1.0]})
    assert [type(entry) for entry in schedule.rows["attn"]] == [int] * 3
    assert schedule.exported("smoothcache-v1") == {"attn": [1, 0, 1]}


def test_a_schedule_does_not_change():
    given = {"ff": [1, 0]}
    schedule = Schedule(evaluations=2, rows=given)
    given["ff"][1] = 1
    given["attn"] = [1, 1]
    assert schedule.rows == {"ff": (1, 0)}
    with pytest.raises(ValueError, match="frozen"):
        schedule.evaluations = 3


# ---------------------------------------------------------------------------- meaning


def test_the_most_specific_key_counts():
    all_keys = {"attn": (1, 0, 0), "attn-3": (1, 0, 1), "blocks.3.attn": (1, 1, 0)}
    for key in ("blocks.3.attn", "attn-3", "attn"):
        assert Schedule(evaluations=3, rows=all_keys).row(SITE) == all_keys[key]
        del all_keys[key]
        all_keys["ff"] = (1, 0, 0)
    assert Schedule(evaluations=3, rows=all_keys).row(SITE) == (1, 1, 1)


def test_the_most_specific_fill_counts():
    rows = {"attn": (1, 1, 0, 1, 0)}
    fills = {"attn": Fill(terms={2: (2.0, -1.0), 4: (0.5,)}), "attn-3": Fill(terms={4: (3.0,)})}
    other = Site(path="blocks.2.attn", kind="attn", block=2)
    schedule = Schedule(evaluations=5, rows=rows, fills=fills)
    assert schedule.terms(SITE) == ((), (), (1.0,), (), (3.0,))
    assert schedule.terms(other) == ((), (), (2.0, -1.0), (), (0.5,))
    assert schedule.terms(DENOISER) == ((),) * 5


def test_unknown_keys_are_those_of_no_site():
    schedule = Schedule(
        evaluations=1,
        rows=dict.fromkeys(["attn", "attn-2", "ff", "b.attn"], (1,)),
        fills=dict.fromkeys(["attn-3", "ff-1", "denoiser"], Fill(terms={})),
    )
    assert schedule.unknown_keys([SITE]) == ["attn-2", "ff", "b.attn", "ff-1"]


def test_the_whole_model_is_always_known():
    rows = dict.fromkeys(["denoiser", "guidance"], (1, 0))
    assert Schedule(evaluations=2, rows=rows).unknown_keys([]) == []


@pytest.mark.parametrize("computed", [46, 24, 26])
def test_compute_fraction_is_that_of_the_rows_if_all_cost_is_in_the_sites(computed: int):
    row = (1,) * (computed - 1) + (0,) * (50 - computed) + (1,)
    sites = [Site(path=f"b.{i}.{k}", kind=k, block=i) for i in range(7) for k in ("attn", "mlp")]
    cost = cost_of({site: 123_457 for site in sites}, total=14 * 123_457)
    schedule = Schedule(evaluations=50, rows={"attn": row, "mlp": row}, cost=cost)
    assert schedule.compute_fraction() == computed / 50
    assert schedule.predicted_speedup() == 1 / (computed / 50)


def test_compute_fraction_counts_what_lies_outside_the_sites():
    other = Site(path="blocks.3.ff", kind="ff", block=3)
    schedule = Schedule(evaluations=4, rows={"attn": (1, 0, 0, 1), "ff": (1, 1, 0, 1)})
    # attn 4 of 10 at 2/4, ff 2 of 10 at 3/4, the other 4 always
    assert schedule.compute_fraction(cost_of({SITE: 4, other: 2}, total=10)) == 0.75


def test_compute_fraction_counts_skipped_evaluations_and_halves():
    rows = {"denoiser": (1, 1, 0, 1), "guidance": (1, 0, 0, 1)}
    schedule = Schedule(evaluations=4, rows=rows)
    # whole, half, nothing, whole
    assert schedule.compute_fraction(cost_of({}, total=10)) == 2.5 / 4
    assert schedule.row(DENOISER).count(0) == 1
    assert schedule.row(GUIDANCE).count(0) == 2


def cost_of(macs: Mapping[Site, int], *, total: int) -> Cost:
    sites = [
        SiteCost(path=site.path, kind=site.kind, block=site.block, macs=each, bytes=1)
        for site, each in macs.items()
    ]
    return Cost(total=total, sites=tuple(sites))


def test_predicted_bytes_by_hand():
    other = Site(path="blocks.3.ff", kind="ff", block=3)
    cost = Cost(
        total=1,
        sites=(
            SiteCost(path=SITE.path, kind="attn", block=3, macs=0, bytes=100),
            SiteCost(path=other.path, kind="ff", block=3, macs=0, bytes=1000),
        ),
    )
    rows = {"attn": (1, 1, 0, 0, 1), "ff": (1, 0, 1, 0, 1)}
    schedule = Schedule(evaluations=5, rows=rows, fills={"attn": Fill(terms={3: (2.0, -1.0)})})
    # attn holds 1, 2, 2, 0, 0 outputs, ff 1, 0, 1, 0, 0
    assert schedule.predicted_bytes(cost) == 1200
    assert Schedule(evaluations=5, rows=rows).predicted_bytes(cost) == 1100
    assert Schedule(evaluations=1, rows={"attn": (1,)}).predicted_bytes(cost) == 0


def test_predicted_bytes_of_the_whole_model_by_hand():
    rows = {"denoiser": (1, 1, 0, 1, 0), "guidance": (1, 0, 0, 0, 0)}
    schedule = Schedule(evaluations=5, rows=rows, fills={"denoiser": Fill(terms={4: (2.0, -1.0)})})
    cost = Cost(total=1, sites=(), output_bytes=100)
    # 0, 1, 1, 2, 0 outputs and 1, 1, 1, 0, 0 differences, which are half as large
    assert schedule.predicted_bytes(cost) == 200
    assert schedule.timeline(GUIDANCE).sources == ((), (0,), (), (0,), ())


def test_predicted_bytes_of_unknown_sizes_are_refused():
    with pytest.raises(ScheduleError, match="bytes need a cost"):
        Schedule(evaluations=1, rows={"ff": (1,)}).predicted_bytes()
    with pytest.raises(ScheduleError, match="does not know the size of the denoiser's output"):
        Schedule(evaluations=2, rows={"denoiser": (1, 0)}).predicted_bytes(cost_of({}, total=1))


def test_a_fill_that_a_more_specific_row_starves_is_refused():
    rows = {"attn": (1, 1, 0), "attn-3": (1, 0, 0)}
    schedule = Schedule(evaluations=3, rows=rows, fills={"attn": Fill(terms={2: (2.0, -1.0)})})
    with pytest.raises(ScheduleError, match=r"'blocks.3.attn' has 2 terms at evaluation 2, but on"):
        schedule.timeline(SITE)


def test_compute_fraction_without_cost_is_refused():
    with pytest.raises(ScheduleError, match="needs a cost"):
        Schedule(evaluations=1, rows={"ff": (1,)}).compute_fraction()


def test_compute_fraction_of_no_cost_is_refused():
    with pytest.raises(ScheduleError, match="the denoiser costs no MACs"):
        Schedule(evaluations=1, rows={"ff": (1,)}).compute_fraction(Cost(total=0, sites=()))


@pytest.mark.parametrize(("row", "skips"), [((1, 1), False), ((1, 0), True)])
def test_skips_says_whether_anything_is_reused(row: tuple[int, ...], skips: bool):
    assert Schedule(evaluations=2, rows={"a": (1, 1), "b": row}).skips is skips


# ---------------------------------------------------------------------------- changes


def test_a_changed_schedule_keeps_everything_else():
    rows = {"attn": (1, 0, 1, 0, 1, 0)}
    changed = FULL.changed(rows=rows)
    assert changed.rows == rows
    assert changed.model_dump(exclude={"rows"}) == FULL.model_dump(exclude={"rows"})
    assert FULL.rows["attn"] == ROW
    assert FULL.changed() == FULL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"attn": "nonsense"}}, "invalid schedule: rows.attn"),
        ({"rows": {"attn": (0, 1, 1, 1, 1, 1)}}, "reuses at the first evaluation"),
        ({"rows": {"attn": (1, 0, 1)}}, "row 'attn' has 3 entries"),
        ({"rows": {}}, "a schedule needs at least one row"),
        ({"rows": {"attn": (1, 0, 0, 0, 0, 0)}}, "but only 1 outputs are computed before it"),
        ({"fills": {"attn": Fill(terms={9: (1.0,)})}}, "names evaluation 9, past the end"),
        ({"fingerprint": Fingerprint(evaluations=7)}, "but the fingerprint says 7"),
        ({"row": {}}, "row"),
    ],
)
def test_changes_that_make_no_schedule_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ScheduleError, match=message):
        FULL.changed(**changes)
