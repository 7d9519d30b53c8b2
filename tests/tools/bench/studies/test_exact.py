import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from smoothcache_core import Calibration
from smoothcache_core.metrics import relative_l2

from tools.bench import cli
from tools.bench.models.image import IMAGE
from tools.bench.policies import asked_for
from tools.bench.studies.exact import FREE, Measured, halves, measure, of_halves
from tools.bench.studies.exact_record import pivot, rows_of, save, to_record
from tools.bench.studies.exact_settings import AudioSettings, Case, Settings
from tools.bench.studies.quality_settings import work_folder

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
    ),
]
CASE = "digits-flow default 6 1.5"
BUDGETS = (1.0, 0.5)
QUICK = ("toward plain", "toward exact, fitted", "evenly", "teacache", "solver")


def settings(folder: Path, **changes: object) -> Settings:
    small = Settings(
        cases=(CASE,),
        budgets=BUDGETS,
        fitted=BUDGETS,
        samples=2,
        seeds=(1000, 2000),
        calibration_samples=2,
        choosing_samples=2,
        reference_steps=40,
        only=QUICK,
        work=folder,
        progress=False,
    )
    return replace(small, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("exact")


@pytest.fixture(scope="module")
def measured(folder: Path):
    (found,) = measure(IMAGE, settings(folder))
    return found


def test_policies_are_chosen_by_name_or_as_tables_show_them():
    labels = ["evenly (reuse)", "evenly (taylor 1)", "toward exact, fitted", "solver (UniPC)"]
    assert asked_for(labels, ()) == labels
    assert asked_for(labels, ("evenly", "solver (UniPC)")) == [*labels[:2], labels[3]]
    assert asked_for(labels, ("evenly (reuse)",)) == labels[:1]
    with pytest.raises(ValueError, match=r"no policy is called \['luck'\]; there are \['evenly"):
        asked_for(labels, ("evenly", "luck"))


def test_cases_are_read_as_they_are_written():
    case = Case.of("digits ddim 50 1.5")
    assert (case.model, case.solver, case.steps, case.guidance) == ("digits", "ddim", 50, 1.5)
    assert str(case) == "digits ddim 50 1.5"
    with pytest.raises(ValueError, match="a case is a model, a solver, steps and guidance"):
        Settings(cases=("digits ddim fifty 1.5",))
    assert all(
        str(Case.of(words)) == words for words in (*Settings().cases, *AudioSettings().cases)
    )


def test_every_row_has_both_distances(measured: Measured):
    rows = {(row["policy"], row["budget"]): row for row in rows_of(measured)}
    plain, exact = rows["plain", 1.0], rows["exact", 1.0]
    assert plain["rel_l2"] == 0.0
    assert plain["of_plain"] == 1.0
    assert exact["exact_rel_l2"] == 0.0
    assert exact["rel_l2"] == pytest.approx(plain["exact_rel_l2"], rel=0.1)
    assert "compute" not in exact
    for row in rows.values():
        assert row["of_plain"] == pytest.approx(row["exact_rel_l2"] / plain["exact_rel_l2"])
        assert {"accuracy", "frechet", "psnr_db"} <= row.keys() | {"psnr_db"}
    json.loads(json.dumps(list(rows.values()), allow_nan=False))


def test_what_aims_at_the_exact_solution_is_nearer_to_it_than_the_plain_run(measured: Measured):
    rows = {(row["policy"], row["budget"]): row for row in rows_of(measured)}
    assert not measured.refused
    ours = rows["toward exact, fitted", 1.0]
    assert ours["of_plain"] < 0.7
    assert ours["compute"] == 1.0
    assert ours["ratio"] == ours["predicted_error"] / ours["exact_rel_l2"]
    assert ("toward plain", 1.0) not in rows
    assert rows["solver (UniPC)", 0.5]["evaluations"] == 3


def test_the_exact_solution_is_more_exact_than_what_is_judged_by_it(measured: Measured):
    distances = [row["exact_rel_l2"] for row in rows_of(measured) if row["policy"] != "exact"]
    assert 0.0 < measured.doubt < min(distances)


def test_a_study_goes_on_where_it_was(measured: Measured, folder: Path):
    place = work_folder(settings(folder), "image", besides=FREE)
    runs = {path: path.stat().st_mtime_ns for path in place.rglob("run-*.pt")}
    assert runs
    (kept,) = place.rglob("calibration.safetensors")
    assert Calibration.load(kept).outcomes  # so nothing is verified again
    (again,) = measure(IMAGE, settings(folder, budgets=(0.5,)))
    assert runs == {path: path.stat().st_mtime_ns for path in place.rglob("run-*.pt")}
    assert torch.equal(again.plain.latents[0], measured.plain.latents[0])


@pytest.mark.zoo
def test_plans_of_one_half_of_the_classes_are_judged_on_the_other(measured: Measured, folder: Path):
    one, other = halves(measured.bench)
    assert not set(one.sampler.conditions) & set(other.sampler.conditions)
    given = settings(folder, half=True, budgets=(0.5,), fitted=(0.5,))
    every, few = of_halves(IMAGE, given)
    assert every.calibrated == "2 samples of 10 classes"
    assert few.calibrated == "8 samples of 5 classes"
    assert relative_l2(every.exact[0], few.exact[0]).max() == 0.0
    assert {row["calibrated"] for row in rows_of(few)} == {few.calibrated}


def test_record_is_written_with_tables_and_pictures(measured: Measured, folder: Path):
    record = to_record(IMAGE, settings(folder), rows_of(measured), {CASE: measured.doubt}, {})
    path = save((record, b"picture"), folder / "records")
    text = path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").read_bytes() == b"picture"
    assert "**digits-flow, Euler, 6 evaluations, guidance 1.5**" in text
    assert "| policy | 1 | 0.5 |" in text
    assert f"doubt of {CASE}" in text


def row(policy: str, budget: float, exact: float, *, ours: bool = False) -> dict[str, object]:
    return {"policy": policy, "budget": budget, "exact_rel_l2": exact, "ours": ours}


def test_pivot_shows_the_nearest_first():
    rows = [
        row("exact", 1.0, 0.0),
        row("plain", 1.0, 0.02),
        row("toward exact", 1.0, 0.005, ours=True),
        row("toward exact", 0.5, 0.01, ours=True),
        row("solver", 0.5, 0.03),
    ]
    assert pivot(rows).splitlines() == [
        "| policy | 1 | 0.5 |",
        "| --- | ---: | ---: |",
        "| **toward exact** | **0.005** | **0.01** |",
        "| solver | - | 0.03 |",
        "| plain | 0.02 | - |",
    ]


def test_impossible_settings_end_the_command_with_a_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="fractions in"):
        cli.main(["exact", "image", "--budget", "1.5"])
