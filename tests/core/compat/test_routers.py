"""Trained routers of Learning-to-Cache and HarmoniCa become schedules, by their published rules."""

import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from smoothcache_core.compat.routers import load_router
from smoothcache_core.errors import ScheduleError

STEPS, BLOCKS = 6, 3


def checkpoint(path: Path, *, seed: int = 0, **others: Any) -> Path:
    """A checkpoint of the published shape: routers, an optimizer, and the arguments."""
    generator = torch.Generator().manual_seed(seed)
    routers = {
        f"{i}.prob": (10 * torch.rand(2 * BLOCKS, generator=generator) - 5) for i in range(STEPS)
    }
    torch.save({"routers": routers, "opt": {}, "args": Namespace(lr=0.01)} | others, path)
    return path


def scores(path: Path) -> torch.Tensor:
    """Sigmoids of the routers, (steps, sub-layers)."""
    with torch.serialization.safe_globals([Namespace]):
        routers = torch.load(path, weights_only=True)["routers"]
    return torch.stack([routers[f"{i}.prob"] for i in range(STEPS)]).sigmoid()


def expected(path: Path, policy: str, threshold: float) -> dict[str, tuple[int, ...]]:
    """The rule as it is published, evaluation by evaluation and sub-layer by sub-layer."""
    needs = scores(path)
    rows = {}
    for slot in range(2 * BLOCKS):
        row = []
        for s in range(STEPS):
            router = STEPS - 1 - s
            decides = s > 0 and (policy == "all" or router % 2 == 0)
            row.append(int(not decides or bool(needs[router, slot] > threshold)))
        rows[f"{('attn', 'mlp')[slot % 2]}-{slot // 2}"] = tuple(row)
    return rows


@pytest.mark.parametrize("policy", ["all", "alternate"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_rows_follow_the_published_rule(tmp_path: Path, policy: Any, threshold: float):
    path = checkpoint(tmp_path / "0020000.pt")
    schedule = load_router(path, policy=policy, threshold=threshold)
    assert schedule.rows == expected(path, policy, threshold)
    assert schedule.skips
    assert schedule.source.name == "router"


def test_learning_to_cache_computes_odd_routers_in_full(tmp_path: Path):
    schedule = load_router(checkpoint(tmp_path / "router.pt"), policy="alternate", threshold=0.99)
    for row in schedule.rows.values():
        assert [row[s] for s in range(STEPS) if (STEPS - 1 - s) % 2] == [1, 1, 1]


def test_a_grid_of_two_evaluations_a_step_decides_at_the_first_of_each(tmp_path: Path):
    path = checkpoint(tmp_path / "uvit.pt")
    needs = scores(path)
    schedule = load_router(path, policy="grid", threshold=0.5)
    row = schedule.rows["attn-0"]
    assert row == (1, 1, int(needs[1, 0] > 0.5), 1, int(needs[2, 0] > 0.5), 1)


def test_a_bare_state_dict_and_other_names_are_taken(tmp_path: Path):
    whole = checkpoint(tmp_path / "whole.pt")
    with torch.serialization.safe_globals([Namespace]):
        torch.save(torch.load(whole, weights_only=True)["routers"], tmp_path / "bare.pt")
    schedule = load_router(tmp_path / "bare.pt", components=("attn1", "ff"))
    assert list(schedule.rows) == ["attn1-0", "ff-0", "attn1-1", "ff-1", "attn1-2", "ff-2"]
    assert list(schedule.rows.values()) == list(load_router(whole).rows.values())


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def test_code_in_a_checkpoint_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"routers": Hostile()}, tmp_path / "torch.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("torch.pt", "plain.pt"):
        with pytest.raises(ScheduleError, match="no checkpoint of tensors"):
            load_router(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_a_truncated_checkpoint_is_refused(tmp_path: Path):
    path = checkpoint(tmp_path / "router.pt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ScheduleError, match="no checkpoint of tensors"):
        load_router(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list"),
        ({"routers": {}}, "it is empty"),
        ({"blocks.0.weight": torch.ones(2)}, "its keys are"),
        ({"0.prob": torch.ones(4), "2.prob": torch.ones(4)}, "numbered from 0"),
        ({"0.prob": torch.ones(4), "1.prob": torch.ones(6)}, "vectors of one length"),
        ({"0.prob": torch.ones(2, 2)}, "vectors of one length"),
        ({"0.prob": 3}, "vectors of one length"),
        ({"0.prob": torch.tensor([1.0, torch.nan])}, "NaN"),
        ({"0.prob": torch.ones(3)}, "do not divide"),
    ],
)
def test_what_is_no_router_is_refused(tmp_path: Path, content: Any, said: str):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ScheduleError, match=said):
        load_router(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": 1.0}, "below 1"),
        ({"policy": "odd"}, "policy is one of"),
        ({"components": ()}, "name the components"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, given: dict[str, Any], said: str):
    with pytest.raises(ScheduleError, match=said):
        load_router(checkpoint(tmp_path / "router.pt"), **given)


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(ScheduleError, match="cannot be read"):
        load_router(tmp_path / "none.pt")
