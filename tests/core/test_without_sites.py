"""Denoisers without sites: whole evaluations, from calibrating to the report, like any other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.planning import PAIR, WAVE, OneStep, Passes, ToySampler, Wave
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    cached,
    calibrate,
    evaluate,
    fit,
    plan,
    transfer,
)
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.errors import CalibrationError, EvaluationError, ScheduleError
from smoothcache_core.fills import taylor
from smoothcache_core.planning import Planner, auto
from smoothcache_core.reports import error_curves, skip_map, to_markdown
from smoothcache_core.reports.folder import write_report
from smoothcache_core.schedule import Cost, SiteCost
from smoothcache_core.sources import SOURCES, plan_sites, smooth, smooth_to_compute
from smoothcache_core.sources.interval import interval_of
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")

GUIDED = PatternAdapter(name="wave", patterns=(), guidance="cond-first")
STEPS = 10
SEEDS = range(4)


def sampler(passes: Passes = "one", *, steps: int = STEPS, model: Wave | None = None) -> Sampler:
    toy = ToySampler(model or Wave(), lambda: OneStep(steps), passes=passes)
    return toy.value(GUIDED if passes == "batched" else WAVE)


def calibrated(known: Sampler, seeds: Iterable[int] = SEEDS, **settings: Any) -> Calibration:
    return calibrate(known, seeds=seeds, progress=False, **settings)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrated(sampler("batched"))


# ---------------------------------------------------------------------------- calibrating


@pytest.mark.parametrize(("passes", "branches"), [("one", ("",)), ("sequential", PAIR)])
def test_whole_runs_are_measured(passes: Passes, branches: tuple[str, ...]):
    found = calibrated(sampler(passes))
    assert found.sites == ()
    assert found.branches == branches
    assert found.totals.shape == (0, len(branches), found.max_lag, STEPS)
    assert found.dynamics is not None
    assert found.dynamics.measured
    assert found.remark == ""
    assert not found.cost.counted
    assert found.cost.output_bytes == 2 * 12 * 4 * len(branches)
    assert "sites: none, whole evaluations only\n  measured: solver response" in repr(found)


def test_sites_change_nothing_of_what_is_measured_of_whole_runs():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)).requires_grad_(False)

        def forward(self, hidden_states: Tensor, timestep: Any, label: Tensor) -> Tensor:
            del label
            for block in self.blocks:
                hidden_states = hidden_states + block(hidden_states).tanh() * (1 + timestep / 9)
            return hidden_states

    net = Net()
    toy = ToySampler(net, lambda: OneStep(STEPS))
    with_sites = PatternAdapter(name="net", patterns=(SitePattern("blocks.*", "block"),))
    one, other = (calibrated(toy.value(a)) for a in (with_sites, whole_evaluations(net)))
    assert one.dynamics is not None
    assert other.dynamics is not None
    for name, values in one.dynamics.arrays().items():
        assert np.array_equal(values, other.dynamics.arrays()[name]), name
    assert other.cost.total == one.cost.total > 0
    half = plan(other, compute=0.5)
    assert half.rows == plan(one, compute=0.5, target="denoiser").rows
    # who found the sites is nothing to a schedule that names none
    with cached(net, with_sites, half) as stats:
        toy(0)
    assert stats.reused == {"denoiser": 5}


def test_a_checkpoint_is_continued(tmp_path: Path):
    file = tmp_path / "c.safetensors"
    model = Wave()
    known = sampler(model=model)
    calibrated(known, range(2), checkpoint=file)
    found = calibrated(known, checkpoint=file)
    assert found == calibrated(known) == Calibration.load(file)
    calls = model.calls
    calibrated(known, checkpoint=file)
    assert model.calls == calls + 1  # a look at a run


def test_files_and_parts_are_as_good_as_the_whole(tmp_path: Path, calibration: Calibration):
    assert Calibration.load(calibration.save(tmp_path / "c.safetensors")) == calibration
    known = sampler("batched")
    parts = [calibrated(known, seeds, sensitivity=(0, 1)) for seeds in ([0, 1], [2, 3])]
    assert Calibration.merge(*parts[::-1]) == calibration


def test_a_compiled_model_may_be_calibrated_and_fitted():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4).requires_grad_(False)

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            del label
            return self.linear(x).tanh() * t / STEPS

    def fitted(net: Any) -> tuple[Calibration, Schedule]:
        toy = ToySampler(net, lambda: OneStep(STEPS))
        known = toy.value(whole_evaluations(net))
        found = calibrated(known)
        return found, fit(known, plan(found, compute=0.5), seeds=SEEDS, progress=False)

    torch.manual_seed(0)
    net = Net()
    (plain, expected), outside = fitted(net), torch.compile(net, backend="aot_eager")
    net_itself = Net()
    net_itself.load_state_dict(net.state_dict())
    net_itself.compile(backend="aot_eager")
    for compiled in (outside, net_itself):
        found, schedule = fitted(compiled)
        assert found.fingerprint.model_class == "Net"
        assert found.cost == plain.cost
        assert schedule.rows == expected.rows


# ---------------------------------------------------------------------------- planning


LEFT = r"names no sites, so no parts .*: target is 'auto' or one of \['denoiser', 'guidance'\] here"


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.name)
def test_targets_of_sites_say_which_are_left(kind: Any, calibration: Calibration):
    if kind.of_sites:
        with pytest.raises(ScheduleError, match=f"adapter 'wave' {LEFT}"):
            plan(calibration, compute=0.5, target=kind.name)
    else:
        assert plan(calibration, compute=0.5, target=kind.name).compute_fraction() <= 0.5


def test_functions_that_plan_sites_say_that_there_are_none(calibration: Calibration):
    for make in (
        lambda: smooth(calibration, alpha=0.2),
        lambda: smooth_to_compute(calibration, compute=0.5),
        lambda: interval_of(calibration, 2),
        lambda: plan_sites(calibration, compute=0.5, objective="relative"),
        lambda: plan(calibration, compute=0.5, fill=taylor(1)),
    ):
        with pytest.raises(ScheduleError, match="'wave' names no sites, so no parts of this model"):
            make()


def test_auto_takes_whole_evaluations(calibration: Calibration):
    half = plan(calibration, compute=0.5)
    assert half.whole
    assert half.compute_fraction() == 0.5
    assert half.predicted_speedup() == 2.0
    assert "compute: 0.500" in repr(half)
    assert plan(calibration, error=0.05).prediction is not None
    assert {point.name for point in Planner(calibration).front()} == {"denoiser", "guidance"}
    assert auto(calibration, error=0.2).chosen.error <= 0.2


def test_without_sensitivities_nothing_can_be_planned():
    known = calibrated(sampler(), sensitivity=0)
    with pytest.raises(ScheduleError, match="calibrate with sensitivity=2"):
        plan(known, compute=0.5)


def test_what_cannot_be_counted_is_counted_in_evaluations():
    uncounted = Cost(total=0, sites=())
    rows = {"denoiser": (1, 0, 1, 1), "guidance": (1, 0, 0, 1)}
    whole = Schedule(evaluations=4, rows=rows)
    assert whole.compute_fraction(uncounted) == (4 - 1 - 0.5) / 4
    of_sites = Schedule(evaluations=2, rows={"ff": (1, 0)})
    free = Cost(total=0, sites=(SiteCost(path="ff", kind="ff", block=0, macs=0, bytes=4),))
    with pytest.raises(ScheduleError, match="costs no MACs, so sites have no share in them"):
        of_sites.compute_fraction(free)


# ---------------------------------------------------------------------------- applying


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_a_plan_is_fitted_judged_and_applied(passes: Passes, tmp_path: Path):
    model = Wave()
    known = sampler(passes, model=model)
    half = plan(calibrated(known), compute=0.5)
    fitted = fit(known, half, seeds=SEEDS, progress=False)
    assert Schedule.load(fitted.save(tmp_path / "half.json")) == fitted
    report = evaluate(known, {"half": fitted}, seeds=range(10, 14), progress=False)
    row = report.row("half")
    assert row.compute == 0.5
    assert row.prediction == fitted.prediction
    assert 0.0 < row.rel_l2 < 0.2
    calls = model.calls
    with cached(model, known.adapter, fitted, branches=known.branches) as stats:
        known.run(0)
    assert stats.reused == {"denoiser": STEPS // 2 * max(len(known.branches), 1)}
    assert model.calls - calls == sum(stats.computed.values())


def test_trials_refine():
    known = sampler()
    begun = plan(calibrated(known), compute=0.5)
    refined = fit(known, begun, seeds=range(6), trials=2, progress=False)
    assert refined.compute_fraction() == 0.5


def test_another_number_of_steps(tmp_path: Path, calibration: Calibration):
    moved = transfer(calibration, sampler("batched", steps=8))
    assert moved.sites == ()
    assert moved.remark == ""
    assert Calibration.load(moved.save(tmp_path / "c.safetensors")) == moved
    assert plan(moved, compute=0.5).evaluations == 8


def test_a_schedule_of_sites_is_refused():
    schedule = Schedule(evaluations=2, rows={"attn": (1, 0)})
    with (
        pytest.raises(
            ScheduleError, match=r"names \['attn'\].* adapter 'wave' it has no sites, so"
        ),
        cached(Wave(), WAVE, schedule),
    ):
        pass


# ---------------------------------------------------------------------------- reports


def test_reports_show_what_there_is(tmp_path: Path, calibration: Calibration):
    known = sampler("batched")
    half = plan(calibration, compute=0.5)
    report = evaluate(known, {"half": half}, seeds=[10, 11], progress=False)
    assert report.compute_unit == "evaluations"
    assert type(report).load(report.save(tmp_path / "report.json")) == report
    assert "compute: counted in evaluations, as the MACs of this denoiser" in to_markdown(report)
    names = [
        file.name
        for file in write_report(
            report, tmp_path, schedules={"half": half}, calibration=calibration
        )
    ]
    assert "skip-map-half.png" in names
    assert "error-curves.png" not in names
    with pytest.raises(EvaluationError, match="knows no errors of sites to draw"):
        error_curves(calibration)
    assert skip_map(half, ()) is not None
    with pytest.raises(EvaluationError, match="a skip map of a schedule of sites needs at least"):
        skip_map(Schedule(evaluations=2, rows={"attn": (1, 0)}), ())


def test_a_report_of_counted_macs_is_written_as_before(tmp_path: Path):
    known = sampler()
    costs = Cost(total=100, sites=())
    half = plan(calibrated(known), compute=0.5).changed(cost=costs)
    report = evaluate(known, {"half": half}, seeds=[10], warmup=0, progress=False)
    assert report.compute_unit == "MACs"
    assert "compute_unit" not in report.to_json()


def test_a_calibration_of_nothing_is_refused():
    with pytest.raises(CalibrationError, match="`run` never called the Wave"):
        calibrated(Sampler(model=Wave(), adapter=WAVE, run=lambda seed: None))
