"""Distances to the exact solution, beside those to the plain run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.exact import CURVED, NO_SOLUTION, Curved, EulerSampler
from kit.planning import Passes
from smoothcache_core import Report, Schedule, SmoothCacheWarning, cached, evaluate, fit
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.reports import measured_of, to_markdown, write_report
from smoothcache_core.sampling.exact_solution import exact_solution
from smoothcache_core.sampling.recording import record
from smoothcache_core.schedule import Aim, Cost

STEPS = 8
COST = Cost(total=10, sites=(), output_bytes=4)
HALF = Schedule(evaluations=STEPS, rows={"denoiser": (1, 1, 0, 1, 0, 1, 0, 1)}, cost=COST)
SEEDS = (10, 11)


def made(passes: Passes = "one", **settings: Any) -> EulerSampler:
    return EulerSampler(Curved(), STEPS, passes, samples=6, **settings)


def judged(sampler: EulerSampler, schedules: Mapping[str, Schedule], **settings: Any) -> Report:
    of_sampler = {key: settings.pop(key) for key in {"finer", "run"} & settings.keys()}
    return evaluate(
        sampler.value(**of_sampler), schedules, seeds=SEEDS, warmup=0, progress=False, **settings
    )


@pytest.fixture(scope="module")
def schedules() -> dict[str, Schedule]:
    """The same rows, toward the plain run and toward the exact solution."""
    value = made().value()
    given: dict[str, Any] = {"seeds": (0, 1), "progress": False}
    aims: tuple[Aim, ...] = ("plain", "exact")
    return {f"to {aim}": fit(value, HALF, **given, toward=aim) for aim in aims}


@pytest.fixture(scope="module")
def report(schedules: dict[str, Schedule]) -> Report:
    return judged(made(), schedules)


def test_every_policy_has_both_distances_and_so_has_the_plain_run(
    report: Report, schedules: dict[str, Schedule]
):
    sampler = made()
    found = [exact_solution(sampler.value(), record(sampler.value(), seed)) for seed in SEEDS]
    exact = torch.cat([each.final.reshape(sampler.samples, -1) for each in found])
    plain = torch.cat([sampler(seed).flatten(1) for seed in SEEDS])
    for policy, schedule in schedules.items():
        with cached(sampler.model, CURVED, schedule):
            own = torch.cat([sampler(seed).flatten(1) for seed in SEEDS])
        row = report.row(policy)
        assert row.exact_rel_l2 == pytest.approx(float(relative_l2(exact, own).mean()), rel=1e-5)
        assert row.rel_l2 == pytest.approx(float(relative_l2(plain, own).mean()), rel=1e-5)
    away = float(relative_l2(exact, plain).mean())
    assert report.row("plain").exact_rel_l2 == pytest.approx(away, rel=1e-5)
    assert report.exact_doubt == pytest.approx(sum(each.doubt for each in found) / 2, rel=1e-5)


def test_each_is_judged_by_the_distance_from_what_it_aims_at(report: Report):
    plain, exact = report.row("to plain"), report.row("to exact")
    assert (plain.error, exact.error) == (plain.rel_l2, exact.exact_rel_l2)
    assert exact.error is not None
    assert plain.exact_rel_l2 is not None
    assert exact.error < min(plain.exact_rel_l2, report.row("plain").exact_rel_l2 or 0.0)
    assert exact.prediction is not None
    assert exact.prediction.error / 2 < exact.error < 2 * exact.prediction.error
    assert measured_of(report)["to exact"].error == exact.error
    assert measured_of(report)["to plain"].error == plain.rel_l2


def test_it_is_measured_where_a_schedule_aims_at_it_or_where_asked_for(
    schedules: dict[str, Schedule],
):
    plain = {"to plain": schedules["to plain"]}
    assert judged(made(), plain).row("plain").exact_rel_l2 is None
    assert judged(made(), plain, exact=True).row("plain").exact_rel_l2 is not None
    without = judged(made(), schedules, exact=False)
    assert without.exact_doubt is None
    assert without.row("to exact").error is None
    assert list(measured_of(without)) == ["to plain"]


def test_files_keep_it_and_those_without_are_as_before(
    report: Report, schedules: dict[str, Schedule], tmp_path: Path
):
    assert Report.load(report.save(tmp_path / "report.json")) == report
    without = judged(made(), schedules, exact=False)
    assert "exact_doubt" not in without.to_json()
    assert Report.load(without.save(tmp_path / "without.json")) == without


def test_a_report_shows_both_distances_everywhere(
    report: Report, schedules: dict[str, Schedule], tmp_path: Path
):
    row = report.row("to exact")
    assert f"{row.exact_rel_l2:.3g} to the exact solution" in repr(report)
    text = to_markdown(report)
    assert "| 95 % of exact_rel_l2" in text
    assert "doubt of the exact solution" in text
    *files, page = write_report(report, tmp_path, schedules=schedules)
    assert tmp_path / "compute-and-exact-error.png" in files
    shown = page.read_text()
    assert "Distance from the exact solution over compute" in shown
    assert shown.count('<g class="mark') == 6


# ---------------------------------------------------------------------------- where there is none


@pytest.mark.parametrize("kind", NO_SOLUTION)
def test_where_there_is_none_it_is_refused_before_anything_is_timed(kind: str):
    settings, message = NO_SOLUTION[kind]
    sampler = made(**settings)
    with pytest.raises(EvaluationError, match=f"cannot be measured: .*{message}"):
        judged(sampler, {"half": HALF}, exact=True)


def test_without_finer_runs_it_is_refused_before_anything_is_run():
    sampler = made()
    with pytest.raises(EvaluationError, match=r"cannot be measured: .*needs finer runs"):
        judged(sampler, {"half": HALF}, exact=True, finer=None)
    assert not sampler.model.calls


def test_what_aims_at_it_and_cannot_be_judged_by_it_is_told(schedules: dict[str, Schedule]):
    with pytest.warns(SmoothCacheWarning, match="compared with the plain run alone"):
        found = judged(made(), schedules, finer=None)
    assert found.row("to exact").error is None


def test_a_metric_cannot_have_its_name():
    with pytest.raises(EvaluationError, match="name yours otherwise"):
        judged(made(), {"half": HALF}, metrics={"exact_rel_l2": relative_l2})
