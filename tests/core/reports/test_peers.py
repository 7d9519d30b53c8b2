import json
from pathlib import Path
from typing import Any

import pytest
from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports import load_peers

ROWS = [
    {"policy": "plain", "ours": False, "evaluations": 50, "compute": 1.0, "rel_l2": 0.0},
    {"policy": "fora", "ours": False, "solver": "DDIM", "compute": 0.5, "rel_l2": 0.2,
     "rel_l2_spread": 0.1, "seconds": 2.0, "speedup": 1.5, "setting": "every 2", "budget": 0.5},
    {"policy": "fora", "ours": False, "compute": 0.25, "rel_l2": 0.4},
    {"policy": "mine", "ours": True, "compute": 0.5, "rel_l2": 0.01},
    {"policy": "timed only", "ours": False, "compute": 0.5},
    {"policy": "broken", "ours": False, "compute": 0.5, "rel_l2": float("nan")},
]  # fmt: skip


def record(folder: Path, content: Any) -> Path:
    path = folder / "quality-image.json"
    path.write_text(json.dumps(content))
    return path


def test_rows_of_other_methods_are_read(tmp_path: Path):
    peers = load_peers(record(tmp_path, {"rows": ROWS}), evaluations=50)
    assert [(p.policy, p.compute, p.rel_l2) for p in peers] == [
        ("fora", 0.5, 0.2), ("fora", 0.25, 0.4),
    ]  # fmt: skip
    assert (peers[0].solver, peers[0].rel_l2_spread, peers[0].ours) == ("DDIM", 0.1, False)


def test_a_record_of_other_evaluations_is_refused(tmp_path: Path):
    path = record(tmp_path, {"rows": ROWS})
    assert load_peers(path) == load_peers(path, evaluations=50)
    with pytest.raises(EvaluationError, match=r"is of 50 evaluations, not of 20"):
        load_peers(path, evaluations=20)


@pytest.mark.parametrize(
    "content", [[], {}, 3, {"rows": 3}, {"rows": [3]}, {"rows": [{"compute": 1.0, "rel_l2": 0.1}]}]
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: Any):
    with pytest.raises(EvaluationError, match="is no record of a benchmark") as caught:
        load_peers(record(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_record_without_peers_or_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match="no row of another method"):
        load_peers(record(tmp_path, {"rows": [ROWS[0], ROWS[3], ROWS[4]]}))
    with pytest.raises(EvaluationError, match="cannot read record"):
        load_peers(tmp_path / "none.json")
