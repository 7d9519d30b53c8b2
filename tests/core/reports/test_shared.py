"""The schedules of a report's folder, with what was measured of them."""

from pathlib import Path

import pytest
import torch
from smoothcache_core import PatternAdapter, Sampler, Schedule, SitePattern, evaluate
from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports import front_of_report
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.schedule import Front
from torch import nn


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)

    def forward(self, hidden_states: torch.Tensor, timestep: float) -> torch.Tensor:
        return self.block(hidden_states).tanh() * timestep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Toy().requires_grad_(False)
    adapter = PatternAdapter(name="toy", patterns=(SitePattern("block", "block"),))

    def run(seed: int) -> torch.Tensor:
        latent = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))
        for step in range(4):
            latent = latent - model(latent, 1 - step / 4) / 4
        return latent

    sampler = Sampler(model=model, adapter=adapter, run=run, solver="euler", samples=2)
    plans = {
        "Every second": Schedule(evaluations=4, rows={"block": (1, 0, 1, 0)}),
        "once": Schedule(evaluations=4, rows={"block": (1, 0, 0, 0)}),
    }
    report = evaluate(sampler, plans, seeds=[5, 6], progress=False, warmup=0)
    place = tmp_path_factory.mktemp("report")
    report.save(place / "report.json")
    for policy, file in schedule_files(plans).items():
        plans[policy].save(place / file)
    for name in ("samples.png", "skip-map-once.png"):
        (place / name).write_bytes(b"png")
    return place


@pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")
def test_a_report_is_shared_with_what_was_measured(folder: Path, tmp_path: Path):
    front = front_of_report(folder, base_model="me/toy", package="smoothcache-image")
    assert list(front.schedules) == ["every-second", "once"]
    assert front.measured["once"].samples == 4
    assert front.measured["once"].error > front.measured["every-second"].error > 0.0
    assert front.pictures == {"samples.png": b"png"}
    shared = front.save_pretrained(tmp_path / "shared")
    assert Front.from_pretrained(shared).measured == front.measured
    assert "measured on 4 samples" in (shared / "README.md").read_text()
    assert Schedule.from_pretrained(shared, error=1.0) == front.schedules["every-second"]


def test_a_report_without_its_schedules_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "report.json").write_bytes((folder / "report.json").read_bytes())
    with pytest.raises(EvaluationError, match="has no schedules beside it"):
        front_of_report(tmp_path)
