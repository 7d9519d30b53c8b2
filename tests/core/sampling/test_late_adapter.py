"""Samplers whose adapter is not given."""

from pathlib import Path

import torch
from smoothcache_core import Calibration, Sampler, Schedule, cached, calibrate, evaluate, fit, plan
from smoothcache_core.adapters import PatternAdapter, SitePattern, whole_evaluations
from smoothcache_core.adapters.late import LateAdapter
from torch import Tensor, nn

WIDTH = 8


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.up(tokens).tanh())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.widening = Part(), Part()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.mixer(tokens)
        return tokens + self.widening(tokens)


class Denoiser(nn.Module):
    """Nobody knows it. It counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.calls = 0

    def forward(self, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        tokens = x
        for block in self.blocks:
            tokens = block(tokens)
        return tokens * t


def unknown(steps: int = 12) -> tuple[Denoiser, Sampler]:
    torch.manual_seed(0)
    model = Denoiser().requires_grad_(False)

    def run(seed: int) -> Tensor:
        latent = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(seed))
        for step in range(steps):
            latent = latent - model(latent, 1 - step / steps) / steps
        return latent

    return model, Sampler(model=model, run=run, solver="euler", samples=2)


def calibrated() -> Calibration:
    return calibrate(unknown()[1], seeds=range(2), progress=False)


FOUND = PatternAdapter(
    name="Denoiser",
    patterns=(SitePattern("blocks.*.mixer", "mixer"), SitePattern("blocks.*.widening", "widening")),
    latent="x",
    timestep="t",
)


def test_a_sampler_runs_nothing_before_something_is_asked_for():
    model, sampler = unknown()
    assert model.calls == 0
    assert (sampler.adapter.latent, sampler.adapter.timestep) == ("x", "t")
    assert model.calls == 0


def test_sites_are_found_once_when_they_are_asked_for():
    model, sampler = unknown()
    assert sampler.adapter.sites(model) == FOUND.sites(model)
    assert sampler.adapter.name == "Denoiser"
    assert model.calls == 2
    assert isinstance(sampler.adapter, LateAdapter)
    assert sampler.adapter.found == FOUND


def test_a_calibration_says_by_which_adapter_it_was_made(tmp_path: Path):
    calibration = calibrated()
    assert calibration.kinds == ("mixer", "widening")
    file = calibration.save(tmp_path / "calibration.safetensors")
    schedule = plan(Calibration.load(file), compute=0.5, target="site")
    read = Schedule.load(schedule.save(tmp_path / "schedule.json"))
    assert read.fingerprint.recorded_adapter == FOUND


def test_a_schedule_is_followed_tomorrow_without_another_search():
    schedule = plan(calibrated(), compute=0.5, target="kind")
    model, sampler = unknown()
    with cached(model, sampler.adapter, schedule) as stats:
        sampler.final_latent(5)
    assert model.calls == 12
    assert set(stats.reused) <= {site.path for site in FOUND.sites(model)}
    assert stats.reuse_fraction > 0


def test_an_adapter_that_was_pasted_into_code_is_the_same():
    schedule = plan(calibrated(), compute=0.5, target="kind")
    model, sampler = unknown()
    with cached(model, FOUND, schedule) as pasted:
        one = sampler.final_latent(5)
    with cached(model, sampler.adapter, schedule) as late:
        other = sampler.final_latent(5)
    assert torch.equal(one, other)
    assert pasted == late


def test_whole_evaluations_of_a_schedule_made_by_hand_need_no_search():
    model, sampler = unknown()
    schedule = Schedule(evaluations=12, rows={"denoiser": (1, 0, 1, 0, *[1] * 8)})
    with cached(model, sampler.adapter, schedule) as stats:
        sampler.final_latent(0)
    assert model.calls == 10
    assert stats.reused == {"denoiser": 2}


def test_a_schedule_by_hand_that_names_sites_has_them_found():
    model, sampler = unknown()
    schedule = Schedule(evaluations=12, rows={"mixer": (1, 0, 1, 0, *[1] * 8)})
    with cached(model, sampler.adapter, schedule) as stats:
        sampler.final_latent(0)
    assert model.calls == 2 + 12
    assert stats.reused == {"blocks.0.mixer": 2, "blocks.1.mixer": 2}


def test_fits_and_evaluates_like_any_other():
    schedule = plan(calibrated(), compute=0.5, target="site")
    _, sampler = unknown()
    fitted = fit(sampler, schedule, seeds=[7, 8, 9], progress=False)
    assert fitted.fingerprint == schedule.fingerprint
    report = evaluate(sampler, {"fitted": fitted}, seeds=[17], progress=False)
    assert [row.policy for row in report.rows] == ["plain", "fitted"]


def test_a_plan_of_whole_evaluations_serves_any_adapter_of_the_model():
    schedule = plan(calibrated(), compute=0.5, target="denoiser")
    model, sampler = unknown()
    with cached(model, whole_evaluations(model), schedule) as stats:
        sampler.final_latent(5)
    assert set(stats.reused) == {"denoiser"}
