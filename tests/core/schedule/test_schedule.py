"""Schedules as values and as files."""

import importlib
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kit.helpers import ROW, STEPS
from smoothcache_core import Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Cost, Fingerprint, Provenance, SiteCost
from smoothcache_core.schedule.consistency import LARGEST
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.provenance import Prediction

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


def fills(row: Sequence[int]) -> st.SearchStrategy[Fill]:
    skipped = [evaluation for evaluation, entry in enumerate(row) if not entry]
    terms = st.tuples(st.floats(-LARGEST, LARGEST))
    places = (
        st.dictionaries(st.sampled_from(skipped), terms, max_size=3) if skipped else st.just({})
    )
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
    chosen = data.draw(rows(evaluations, KEYS))
    schedule = Schedule(
        evaluations=evaluations,
        rows=chosen,
        fills={key: data.draw(fills(row)) for key, row in chosen.items()},
        prediction=data.draw(st.sampled_from([None, FULL.prediction])),
        source=Provenance(name=data.draw(KEYS), settings=settings, seeds=(3, 1)),
        fingerprint=Fingerprint(
            solver=data.draw(st.none() | KEYS),
            timesteps=data.draw(st.tuples(*[NUMBERS] * evaluations)),
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
    with pytest.raises(ScheduleError, match="no format 'v1', but "):
        REUSE_ONLY.exported("v1")
    with pytest.raises(ScheduleError, match="a list is no schedule in any known format"):
        Schedule.imported([1, 0])


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"attn": [1, 0], "mlp": [1, 0, 0]}, r"rows differ in length: {'attn': 2, 'mlp': 3}"),
        ({"attn": "10"}, "'attn' is not a list"),
        ({"attn": {"0": 1}}, "'attn' is not a list"),
        ({"attn": [1, 2]}, r"rows.attn.1: Input should be less than or equal to 1"),
        ({"attn": [1, 0, -1]}, r"rows.attn.2: Input should be greater than or equal to 0"),
        ({"attn": [1.0, 0.0]}, r"rows.attn.0: Input should be a valid integer"),
        ({"attn": [True, False]}, r"rows.attn.0: Input should be a valid integer"),
        ({"": [1, 0]}, "rows.*should have at least 1"),
        ({"attn": [0, 1]}, "row 'attn' reuses at the first evaluation"),
        ({"attn": []}, "evaluations: Input should be greater than 0"),
        ({}, "it has no rows"),
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
        (b"{", "is not a JSON file"),
        (b"\xff\xfe", "is not a JSON file"),
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

SITE_COST = {"path": "blocks.3.ff", "kind": "ff", "block": 3, "macs": 2, "bytes": 1}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "short": ({"rows": {"ff": [1, 0]}}, "row 'ff' has 2 entries, but the schedule has 3 eval"),
    "long": ({"rows": {"ff": [1, 0, 0, 0]}}, "row 'ff' has 4 entries, but the schedule has 3 eval"),
    "first reused": ({"rows": {"ff": [0, 1, 1]}}, "row 'ff' reuses at the first evaluation"),
    "no rows": ({"rows": {}}, "at least one row"),
    "two": ({"rows": {"ff": [1, 2, 0]}}, "rows.ff.1: Input should be less than or equal to 1"),
    "negative": ({"rows": {"ff": [1, -1, 0]}}, "rows.ff.1: Input should be greater than or equal"),
    "half": ({"rows": {"ff": [1, 0.5, 0]}}, "rows.ff.1: Input should be a valid integer"),
    "whole number with a point": ({"rows": {"ff": [1, 0.0, 0]}}, "rows.ff.1: Input should be a v"),
    "truth": ({"rows": {"ff": [True, False, True]}}, "rows.ff.0: Input should be a valid integer"),
    "text": ({"rows": {"ff": [1, "0", 0]}}, "rows.ff.1: Input should be a valid integer"),
    "null": ({"rows": {"ff": [1, None, 0]}}, "rows.ff.1: Input should be a valid integer"),
    "row without a name": ({"rows": {"": [1, 0, 1]}}, "rows.*should have at least 1"),
    "zero evaluations": ({"evaluations": 0}, "evaluations: Input should be greater than 0"),
    "part of an evaluation": ({"evaluations": 2.5}, "evaluations: Input should be a valid integer"),
    "text for evaluations": ({"evaluations": "3"}, "evaluations: Input should be a valid integer"),
    "truth for evaluations": ({"evaluations": True}, "evaluations: Input should be a valid int"),
    "3.0 evaluations": ({"evaluations": 3.0}, "evaluations: Input should be a valid integer"),
    "version with a point": ({"version": 3.0}, "version: it is an integer, got 3.0"),
    "version 2 with a point": ({"version": 2.0}, "it is an integer, got 2.0"),
    "field self": ({"self": 1}, "self: Extra inputs are not permitted"),
    "extra field": ({"alpha": 0.1}, "alpha: Extra inputs are not permitted"),
    "extra source": ({"source": {"name": "x", "why": 1}}, "source.why: Extra inputs are not"),
    "extra print": ({"fingerprint": {"model": "x"}}, "fingerprint.model: Extra inputs are not"),
    "format": ({"format": "other"}, "format: Input should be 'smoothcache-schedule'"),
    "version": ({"version": 4}, "version: Input should be 3"),
    "fill of version 2": ({"fill": "reuse"}, "fill: Extra inputs are not permitted"),
    "fill of what is computed": (
        {"fills": {"ff": {"terms": {"2": [1.0]}}}},
        "fill 'ff' names evaluation 2, which is computed",
    ),
    "fill of the first evaluation": (
        {"fills": {"ff": {"terms": {"0": [1.0]}}}},
        "fill 'ff' names evaluation 0, which is computed",
    ),
    "inputs of what is computed": (
        {"rows": {"denoiser": [1, 0, 1]}, "fills": {"denoiser": {"terms": {}, "inputs": {"2": 1}}}},
        "fill 'denoiser' names evaluation 2, which is computed",
    ),
    "fill without a row": ({"fills": {"mlp": {"terms": {"1": [1.0]}}}}, "fill 'mlp' has no row"),
    "fill of the kind, row of a block": (
        {"rows": {"ff-0": [1, 0, 1]}, "fills": {"ff": {"terms": {"1": [1.0]}}}},
        "fill 'ff' has no row",
    ),
    "inherited terms": (
        {
            "rows": {"ff": [1, 1, 0], "ff-3": [1, 0, 0]},
            "fills": {"ff": {"terms": {"2": [2.0, -1.0]}}},
        },
        "fill 'ff' has 2 terms at evaluation 2, but only 1 outputs .* in row 'ff-3'",
    ),
    "fill of a path that fits no row": (
        {"fills": {"blocks.3.ff": {"terms": {"2": [1.0]}}}},
        "fill 'blocks.3.ff' names evaluation 2, which is computed",
    ),
    "evaluation with a zero before": (
        {"fills": {"ff": {"terms": {"01": [1]}}}},
        "fills.ff.terms.01",
    ),
    "evaluation with a sign": ({"fills": {"ff": {"terms": {"+1": [1]}}}}, r"fills.ff.terms.\+1"),
    "evaluation with a space": ({"fills": {"ff": {"terms": {" 1": [1]}}}}, "fills.ff.terms. 1"),
    "huge coefficient": (
        {"fills": {"ff": {"terms": {"1": [1e30]}}}},
        "fills.ff.terms.1.0: Input should be less than or equal to 65504",
    ),
    "huge coefficient of a latent": (
        {
            "rows": {"denoiser": [1, 0, 1]},
            "fills": {"denoiser": {"terms": {}, "anchors": {"1": -1e6}}},
        },
        "fills.denoiser.anchors.1: Input should be greater than or equal to -65504",
    ),
    "text for a coefficient": (
        {"fills": {"ff": {"terms": {"1": ["1"]}}}},
        "terms.1.0: Input should",
    ),
    "truth for a coefficient": (
        {"fills": {"ff": {"terms": {"1": [True]}}}},
        "terms.1.0: Input sho",
    ),
    "timesteps": (
        {"fingerprint": {"timesteps": [9, 1]}},
        "there are 2 timesteps for 3 evaluations",
    ),
    "no evaluations": (
        {"fingerprint": {"evaluations": 0}},
        "fingerprint.evaluations: Input should",
    ),
    "branch twice": ({"fingerprint": {"branches": ["a", "a"]}}, "branches: 'a' occurs twice"),
    "negative total": ({"cost": {"total": -1, "sites": []}}, "cost.total: Input should be greater"),
    "negative size": ({"cost": {"total": 1, "sites": [], "output_bytes": -1}}, "cost.output_bytes"),
    "sites dearer than the whole": (
        {"cost": {"total": 1, "sites": [SITE_COST]}},
        "cost: the sites cost 2 MACs, the whole denoiser 1",
    ),
    "site twice": (
        {"cost": {"total": 9, "sites": [SITE_COST, SITE_COST]}},
        "cost.sites: the site 'blocks.3.ff' occurs twice",
    ),
    "low above error": ({"prediction": {"error": 1, "low": 2}}, "low is at most error"),
    "high below error": ({"prediction": {"error": 1, "high": 0.5}}, "error at most high"),
    "negative error": ({"prediction": {"error": -1}}, "prediction.error: Input should be greater"),
    "negative bytes": ({"prediction": {"error": 1, "bytes": -5}}, "prediction.bytes: Input should"),
    "negative seconds": ({"prediction": {"error": 1, "seconds": -1}}, "prediction.seconds: Input"),
    "measured 1": (
        {"prediction": {"error": 1, "measured": 1}},
        "prediction.measured: Input should",
    ),
    "seeds twice": ({"source": {"name": "x", "seeds": [1, 1]}}, "source.seeds: 1 occurs twice"),
    "half a seed": ({"source": {"name": "x", "seeds": [0.5]}}, "source.seeds.0: Input should be a"),
    "fill past the end": ({"fills": {"ff": {"terms": {3: [1]}}}}, "names evaluation 3, past the"),
    "inputs past the end": (
        {"rows": {"denoiser": [1, 0, 1]}, "fills": {"denoiser": {"terms": {}, "inputs": {3: 1}}}},
        "fill 'denoiser' names evaluation 3, past the end",
    ),
    "negative evaluation": ({"fills": {"ff": {"terms": {-1: [1]}}}}, "fills.ff.terms.-1"),
    "no terms": ({"fills": {"ff": {"terms": {1: []}}}}, "fills.ff.terms.1: Tuple should have at"),
    "four terms": ({"fills": {"ff": {"terms": {2: [1] * 4}}}}, "fills.ff.terms.2: Tuple should"),
    "too many terms": (
        {"fills": {"ff": {"terms": {1: [2, -1]}}}},
        "fill 'ff' has 2 terms at evaluation 1, but only 1 outputs are computed before it",
    ),
    "inputs of a site": (
        {"fills": {"ff": {"terms": {}, "inputs": {1: 0.5}}}},
        "fill 'ff' has inputs; only 'denoiser' may use the latent",
    ),
    "corrections past the end": (
        {"corrected": {"terms": {3: [1]}}},
        "corrected names evaluation 3, past the end",
    ),
    "corrections of what is skipped": (
        {"rows": {"denoiser": [1, 0, 1]}, "corrected": {"terms": {1: [0.5]}}},
        "corrected names evaluation 1, which is skipped",
    ),
    "corrections of too many terms": (
        {"rows": {"denoiser": [1, 0, 1]}, "corrected": {"terms": {2: [1, 0.5, 0.5]}}},
        "3 terms at evaluation 2, its own and those before it, but only 1 outputs are computed",
    ),
    "corrections by a latent alone": (
        {"corrected": {"terms": {}, "inputs": {1: 0.5}}},
        "corrected has inputs at evaluation 1, but no terms",
    ),
    "corrections with anchors": (
        {"corrected": {"terms": {1: [1]}, "anchors": {1: 0.5}}},
        "corrected has terms and inputs only",
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


def test_corrections_of_computed_outputs_come_back_from_a_file_and_count_in_memory(tmp_path: Path):
    corrected = Fill(terms={0: (0.9,), 2: (1.5, -0.5), 3: (1.0, 0.2, -0.1)}, inputs={2: 0.25})
    plain = Schedule(evaluations=4, rows={"ff": (1, 0, 1, 0)})
    schedule = plain.changed(corrected=corrected)
    assert Schedule.load(schedule.save(tmp_path / "corrected.json")) == schedule
    assert "corrected: 3 computed evaluations" in repr(schedule)
    assert [schedule.changes_at(e) for e in range(4)] == [True] * 4
    assert [plain.changes_at(e) for e in range(4)] == [False, True, False, True]
    cost = Cost(total=9, sites=(), output_bytes=100)
    assert (plain.predicted_bytes(cost), schedule.predicted_bytes(cost)) == (0, 200)
    with pytest.raises(ScheduleError, match="does not know the size of the denoiser's output"):
        schedule.predicted_bytes(Cost(total=9, sites=()))


@pytest.mark.parametrize("missing", ["evaluations", "rows"])
def test_missing_fields_are_refused(missing: str):
    content: dict[str, Any] = {"evaluations": 2, "rows": {"ff": (1, 0)}}
    del content[missing]
    with pytest.raises(ScheduleError, match=f"{missing}: Field required"):
        Schedule(**content)


INFINITE = float("inf")
UNSAYABLE: dict[str, dict[str, Any]] = {
    "term": {"fills": {"ff": {"terms": {1: [INFINITE]}}}},
    "error": {"prediction": {"error": INFINITE}},
    "weights": {"fingerprint": {"weights": {"a": float("nan")}}},
    "guidance": {"fingerprint": {"guidance": {"a": INFINITE}}},
    "settings": {"source": {"name": "x", "settings": {"a": float("nan")}}},
    "huge setting": {"source": {"name": "x", "settings": {"a": 10**400}}},
    "huge cost": {"cost": {"total": 10**400, "sites": []}},
    "name": {"source": {"name": "\ud800"}},
    "setting": {"source": {"name": "x", "settings": {"a": "\ud800"}}},
    "key": {"fingerprint": {"versions": {"\ud800": "1"}}},
}


@pytest.mark.parametrize("change", UNSAYABLE.values(), ids=UNSAYABLE)
def test_what_no_file_could_say_is_refused_in_python_too(change: dict[str, Any], tmp_path: Path):
    content = {"format": "smoothcache-schedule", "evaluations": 3, "rows": {"ff": [1, 0, 1]}}
    with pytest.raises(ScheduleError, match="invalid schedule"):
        Schedule(**{**content, **change})
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(ScheduleError, match="is not a JSON file"):
        Schedule.load(path)


def test_scalars_of_numpy_are_what_they_hold(tmp_path: Path):
    row: Any = np.array([1, 0, 1])
    terms: Any = {np.int32(1): (np.float32(0.5),)}
    seeds: Any = tuple(np.arange(2))
    schedule = Schedule(
        evaluations=np.int64(3),
        rows={"ff": tuple(row)},
        fills={"ff": Fill(terms=terms)},
        source=Provenance(name="x", settings={"a": np.float64(0.25)}, seeds=seeds),
    )
    assert schedule.to_json() == Schedule.load(schedule.save(tmp_path / "schedule.json")).to_json()
    with pytest.raises(ScheduleError, match=r"rows.ff.0: Input should be a valid integer"):
        Schedule(evaluations=3, rows={"ff": tuple(row.astype(float))})


def test_a_value_that_went_around_its_validator_is_no_part_of_a_schedule():
    broken = Prediction(error=1.0).model_copy(update={"error": -1.0})
    with pytest.raises(ScheduleError, match=r"prediction.error: Input should be greater"):
        FULL.changed(prediction=broken)


def test_no_code_goes_around_a_validator():
    packages = Path(__file__).parents[3] / "packages"
    sources = [file for file in packages.rglob("*.py") if "model_co" in file.read_text()]
    around = re.compile(r"\.model_(copy|construct)\(")
    assert not [file.name for file in sources if around.search(file.read_text())]


def test_values_by_themselves_raise_errors_of_this_library():
    with pytest.raises(ScheduleError, match=r"invalid fill: terms.1.0: Input should be a finite"):
        Fill(terms={1: (float("nan"),)})
    with pytest.raises(ScheduleError, match=r"invalid fingerprint: there are 1 timesteps for 2"):
        Fingerprint(timesteps=(1.0,), evaluations=2)
    with pytest.raises(ScheduleError, match="invalid cost: the sites cost 2 MACs"):
        Cost(total=1, sites=(SiteCost(**SITE_COST),))


def test_fills_of_sites_may_go_with_the_row_of_their_kind():
    """As `fit` writes them for a schedule of kinds."""
    fill = Fill(terms={1: (0.5,)})
    for key in ("ff-3", "blocks.3.ff"):
        schedule = Schedule(evaluations=3, rows={"ff": (1, 0, 1)}, fills={key: fill})
        assert schedule.fill(Site(path="blocks.3.ff", kind="ff", block=3)) == fill


def test_fills_of_guidance_matter_only_where_the_denoiser_is_called():
    rows = {"denoiser": (1, 0, 1, 1), "guidance": (1, 0, 1, 0)}
    line = Fill(terms={1: (2.0, -1.0), 3: (2.0, -1.0)})
    assert Schedule(evaluations=4, rows=rows, fills={"guidance": line}).fills["guidance"] == line
    with pytest.raises(ScheduleError, match="3 terms at evaluation 3, but only 2 outputs"):
        Schedule(evaluations=4, rows=rows, fills={"guidance": Fill(terms={3: (1.0, 1.0, 1.0)})})


DOCUMENTS: dict[str, tuple[str | bytes, str]] = {
    "deep": ("[" * 100000, "nested more than 32 levels deep"),
    "deep inside": ('{"format": ' + "[" * 500 + "]" * 500 + "}", "nested more than 32 levels deep"),
    "a field twice": ('{"rows": {}, "rows": {}}', "the key 'rows' occurs twice"),
    "a row twice": ('{"rows": {"a": [1], "a": [1]}}', "the key 'a' occurs twice"),
    "NaN": ('{"rows": NaN}', "NaN is no number of JSON"),
    "huge integer": ('{"rows": 1' + "0" * 400 + "}", "does not fit into 64 bits"),
    "huge number": ('{"rows": 1e999}', "beyond what 64 bits hold"),
    "surrogate": ('{"rows": "\\ud800"}', "holds half of a surrogate pair"),
    "UTF-16": ('{"attn": [1, 0]}'.encode("utf-16"), "not UTF-8"),
    "mark": (b"\xef\xbb\xbf{}", "is not a JSON file"),
    "nothing": (b"", "is not a JSON file"),
}


@pytest.mark.parametrize(("content", "message"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents_that_could_be_read_in_two_ways_are_refused(
    content: str | bytes, message: str, tmp_path: Path
):
    path = tmp_path / "schedule.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ScheduleError, match=f"is not a JSON file: .*{message}|{message}"):
        Schedule.load(path)


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
        fills=dict.fromkeys(["attn-3", "ff-1"], Fill(terms={})),
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
    rows = {"attn": (1, 1, 0), SITE.path: (1, 0, 0)}
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
    rows = {"attn": (1, 1, 0, 1, 0, 0)}
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


def test_numbers_as_keys_are_read_in_one_way(tmp_path: Path):
    prediction = Prediction(error=0.1, by_guidance={1.0: 0.2, 1e-7: 0.3, 4.5: 0.1})
    schedule = FULL.changed(prediction=prediction)
    path = schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(path) == schedule
    for wrong in ('"1": 0.2, "1.0"', '"+1.0"', '" 1.0"', '"nan"', '"1_0"', '""'):
        path.write_text(schedule.to_json().replace('"1.0"', wrong))
        with pytest.raises(ScheduleError, match=r"prediction.by_guidance"):
            Schedule.load(path)


def test_a_repr_says_in_a_few_lines_what_is_skipped():
    text = repr(FULL.changed(cost=Cost(total=10, sites=())))
    assert text.splitlines() == [
        "Schedule by smooth(alpha=0.18, max_lag=3, per=kind, strict=False) for 6 evaluations",
        "  skipped: attn 3, ff-3 1, blocks.7.ff 0",
        "  compute: 1.000",
        "  predicted: Prediction(error 0.125 (0.1 to ?), measured yes, bytes 4096)",
    ]
    many = Schedule(evaluations=2, rows={f"b.{i}": (1, 0) for i in range(500)})
    assert len(repr(many)) < 200
    assert str(many) == repr(many)


def test_pickles_of_before_find_their_classes():
    older = importlib.import_module("smoothcache_core.schedule.schedule")
    assert older.Fill is Fill
    schedule = Schedule(
        evaluations=3, rows={"attn": (1, 1, 0)}, fills={"attn": Fill(terms={2: (2.0, -1.0)})}
    )
    assert pickle.loads(pickle.dumps(schedule)) == schedule
