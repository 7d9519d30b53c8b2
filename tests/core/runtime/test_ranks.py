"""Two ranks that hold one denoiser, or share its work, skip alike."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.parallel import (
    ADAPTER,
    Tokens,
    calibrate_together,
    run_sequence,
    run_sharded,
    run_split,
    run_unlike,
    sample,
)
from kit.ranks import Ranks, launched
from smoothcache_core import Sampler, calibrate, plan
from smoothcache_core.adapters import whole_evaluations

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,  # until the processes have started
]


@pytest.fixture(scope="module")
def ranks() -> Generator[Ranks]:
    with launched() as started:
        yield started


def together(ranks: Ranks, job: Callable[..., Any], file: Path, **settings: Any) -> list[Any]:
    return ranks.run(job, *({"file": file, "rank": rank, **settings} for rank in (0, 1)))


def test_a_sharded_model_is_skipped_by_all_ranks(ranks: Ranks, tmp_path: Path):
    for found in together(ranks, run_sharded, tmp_path / "group"):
        assert found == {
            "plain": True,
            "whole": (True, {"denoiser": 2}),
            "sites": (True, {f"blocks.{n}": 2 for n in range(3)}),
            "after": True,
        }


def test_ranks_of_a_sharded_model_must_have_one_schedule(ranks: Ranks, tmp_path: Path):
    for told in together(ranks, run_unlike, tmp_path / "group"):
        assert "is in shards on 2 ranks, and they have different schedules" in told


def test_guidance_shared_out_among_ranks_follows_the_plan_of_one_process(
    ranks: Ranks, tmp_path: Path
):
    model = Tokens()
    sampler = Sampler(
        model=model, adapter=whole_evaluations(model), run=lambda seed: sample(model, seed),
        samples=2, solver="euler",
    )  # fmt: skip
    with torch.no_grad():
        calibration = calibrate(sampler, seeds=range(2), progress=False)
    half = plan(calibration, compute=0.5, target="denoiser")
    assert half.solver_steps is not None
    one, other = together(ranks, run_split, tmp_path / "group", schedule=half)
    assert torch.equal(one.pop("outcome"), other.pop("outcome"))
    assert one == other
    assert one["apart"] < 1e-5
    assert one["calls"] == 3
    assert one["reused"] == {"denoiser": 4}


def test_tokens_shared_out_among_ranks_are_skipped_by_all(ranks: Ranks, tmp_path: Path):
    one, other = together(ranks, run_sequence, tmp_path / "group")
    assert one == other
    assert [apart < 1e-5 for apart, _ in one.values()] == [True, True]
    assert one["whole"][1] == {"denoiser": 2}
    assert one["sites"][1] == {f"blocks.{n}": 2 for n in range(3)}


def test_whole_runs_are_calibrated_together(ranks: Ranks, tmp_path: Path):
    expected = calibrate_together()
    file = tmp_path / "c.safetensors"
    outcomes = ranks.run(calibrate_together, {"sharded": True, "checkpoint": file})
    assert [outcome == expected for outcome in outcomes] == [True, True]
    assert expected.sites == ()
    assert ADAPTER.sites(Tokens())
