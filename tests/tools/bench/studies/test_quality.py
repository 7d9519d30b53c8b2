import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from smoothcache_core import Calibration, Schedule, calibrate
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import reuse, taylor
from smoothcache_core.metrics import relative_l2
from smoothcache_core.sources import interval
from smoothcache_image import cached_pipeline

from tools.bench import cli
from tools.bench.baselines import diffusers_hooks
from tools.bench.baselines.fora import fora
from tools.bench.baselines.ours import Material, scheduled
from tools.bench.baselines.peers import quiet
from tools.bench.baselines.whole import even, tea
from tools.bench.bench import Bench, Run, load_bench, ode_solution
from tools.bench.counting import counting, macs_by_leaf
from tools.bench.models.image import IMAGE, solver_title
from tools.bench.policies import PLAIN, OutOfReachError, fewer_steps
from tools.bench.records import Record
from tools.bench.studies.quality import Measured, measure
from tools.bench.studies.quality_policies import MAX_LAGS, families, is_peer
from tools.bench.studies.quality_record import pivot, save, to_record, trade_off
from tools.bench.studies.quality_settings import Settings, work_folder
from tools.bench.studies.tuning import FAR, NEAR, Dial, Trial, Trials, Tuner, choose

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
    ),
]

STEPS, SEED = 6, 1000
HOST = IMAGE.host
QUICK = ("fora", "every-second")


def every_second(material: Material, budget: float) -> Schedule:
    if budget < 0.5:
        raise ScheduleError("half of the evaluations are computed")
    calibration = material.calibration
    return interval(
        2,
        evaluations=calibration.evaluations,
        kinds=calibration.kinds,
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )


OURS = {"every-second": every_second}


def settings(folder: Path, **changes: object) -> Settings:
    small = Settings(
        solver="ddim",
        steps=STEPS,
        budgets=(0.5,),
        samples=2,
        seeds=(SEED, 2 * SEED),
        calibration_samples=2,
        reference_steps=8,
        work=folder,
        progress=False,
    )
    return replace(small, **changes)


@pytest.fixture(scope="module")
def bench():
    return load_bench(IMAGE, "digits", "ddim", steps=STEPS, device="cpu")


@pytest.fixture(scope="module")
def calibration(bench: Bench):
    sampler = bench.of_batch(2)
    return calibrate(sampler, seeds=[0], max_lag=3, progress=False)


@pytest.fixture(scope="module")
def spaced(calibration: Calibration):
    return fora(calibration, 0.6)


@pytest.fixture(scope="module")
def plain(bench: Bench):
    return bench.run(PLAIN.attach, samples=2, seed=SEED)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    return measure(IMAGE, settings(tmp_path_factory.mktemp("work")), ours=OURS)


@pytest.fixture(scope="module")
def record(measured: Measured, tmp_path_factory: pytest.TempPathFactory):
    return to_record(settings(tmp_path_factory.mktemp("unused")), measured)


# ---------------------------------------------------------------------------- counting


def test_all_macs_of_an_evaluation_are_counted(bench: Bench, calibration: Calibration):
    assert bench.plain_macs == STEPS * calibration.cost.total / 2  # of two samples


def test_macs_are_counted_by_rows(bench: Bench):
    one = replace(bench.of_batch(1), steps=1)
    assert macs_by_leaf(one.pipe.transformer, lambda: one(0)) == bench.macs
    unguided = replace(one, guidance=1.0)
    with counting(one.pipe.transformer, bench.macs) as counted:
        unguided(0)
    assert counted.macs * 2 * STEPS == bench.plain_macs


def test_counted_compute_is_that_of_the_schedule(bench: Bench, spaced: Schedule):
    run = bench.run(scheduled(spaced), samples=2, seed=SEED)
    assert bench.compute(run) == pytest.approx(spaced.compute_fraction(), rel=1e-12)


# ---------------------------------------------------------------------------- policies


@pytest.mark.parametrize("budget", [0.25, 0.4, 0.5, 0.7, 0.99])
def test_fora_is_the_nearest_from_below(calibration: Calibration, budget: float):
    schedule = fora(calibration, budget)
    (row,) = set(schedule.rows.values())
    one_more = calibration.cost.fraction() / calibration.evaluations
    assert schedule.compute_fraction() <= budget < schedule.compute_fraction() + one_more
    assert row[0] == 1
    assert row[-1] == int(sum(row) > 1)


def test_fora_refuses_what_is_out_of_reach(calibration: Calibration):
    with pytest.raises(OutOfReachError, match=r"computing once costs 0\.207"):
        fora(calibration, 0.2)


def test_whole_evaluations_are_skipped_evenly_and_extrapolated(calibration: Calibration):
    schedule = even(calibration, 0.5, taylor(1))
    assert schedule.rows == {"denoiser": (1, 0, 1, 0, 0, 1)}
    assert schedule.fills["denoiser"].terms == {3: (1.5, -0.5), 4: (2.0, -1.0)}
    assert schedule.compute_fraction() == pytest.approx(0.5)


def test_teacache_skips_where_little_changes(calibration: Calibration):
    changes = [(s, s) for s in (0.5, 0.01, 0.02, 0.4, 0.03)]
    schedule = tea(calibration, changes, 0.7, reuse())
    assert schedule.rows == {"denoiser": (1, 1, 0, 0, 1, 1)}
    with pytest.raises(OutOfReachError, match="at least 2 evaluations are computed"):
        tea(calibration, changes, 0.2, reuse())


def test_settings_that_skip_nothing_give_the_plain_sample(
    bench: Bench, calibration: Calibration, plain: Run
):
    everything = interval(1, evaluations=STEPS, kinds=calibration.kinds)
    policies = [
        scheduled(everything),
        diffusers_hooks.taylorseer(HOST, everything, 2),
        diffusers_hooks.first_block_cache(HOST, -1.0),
        fewer_steps(lambda sampler, steps: replace(sampler, steps=steps), STEPS),
    ]
    for attach in policies:
        run = bench.run(attach, samples=2, seed=SEED)
        assert torch.equal(run.latents, plain.latents)
        assert bench.compute(run) == 1.0


def test_taylorseer_of_order_0_is_reuse(bench: Bench, spaced: Schedule, plain: Run):
    ours, theirs, first = (
        bench.run(attach, samples=2, seed=SEED)
        for attach in (
            scheduled(spaced),
            diffusers_hooks.taylorseer(HOST, spaced, 0),
            diffusers_hooks.taylorseer(HOST, spaced, 1),
        )
    )
    assert torch.equal(ours.latents, theirs.latents)
    assert ours.macs == theirs.macs == first.macs
    assert not torch.equal(ours.latents, plain.latents)
    assert not torch.equal(ours.latents, first.latents)


def test_dit_smoothcache_gives_the_samples_of_the_same_schedule(bench: Bench, spaced: Schedule):
    pytest.importorskip("SmoothCache")
    ours, theirs = (
        bench.run(attach, samples=2, seed=SEED)
        for attach in (
            scheduled(spaced),
            HOST.dit_smoothcache(lambda steps: spaced.exported("smoothcache-v1")),
        )
    )
    assert torch.equal(ours.latents, theirs.latents)
    assert ours.macs == theirs.macs


def test_mag_cache_calibrates_itself(bench: Bench):
    run = partial(bench.run, samples=2, seed=0)
    with quiet():
        ratios = diffusers_hooks.mag_ratios(HOST, run)
    assert len(ratios) == STEPS
    assert ratios[0] == 1.0
    assert all(ratio > 0.0 and ratio != 1.0 for ratio in ratios[1:])


def test_runs_leave_the_testbed_as_it_was(bench: Bench, spaced: Schedule, plain: Run):
    model = bench.sampler.pipe.transformer
    for attach in (
        scheduled(spaced),
        diffusers_hooks.taylorseer(HOST, spaced, 1),
        diffusers_hooks.first_block_cache(HOST, 0.2),
    ):
        bench.run(attach, samples=2, seed=SEED)
    assert "forward" not in vars(model)
    assert torch.equal(bench.run(PLAIN.attach, samples=2, seed=SEED).latents, plain.latents)


# ---------------------------------------------------------------------------- tuning


@pytest.fixture(scope="module")
def trials(bench: Bench, tmp_path_factory: pytest.TempPathFactory):
    reference = bench.run(PLAIN.attach, samples=2, seed=0).latents
    path = tmp_path_factory.mktemp("trials") / "trials.json"
    return Trials(bench=bench, seed=0, reference=reference, path=path)


FIRST_BLOCK = Dial(
    name="first-block-cache",
    attach=lambda options, threshold: diffusers_hooks.first_block_cache(HOST, threshold),
    options=[{}],
    low=1e-4,
    high=10.0,
)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.8, 0.5])
def test_tuned_threshold_is_as_near_as_any(trials: Trials, budget: float):
    found = Tuner(trials).best(FIRST_BLOCK, budget)
    grid = [
        trials.of(f"grid {t}", diffusers_hooks.first_block_cache(HOST, t))
        for t in (0.1, 0.2, 0.3, 0.5, 0.8)
    ]
    nearest = min(abs(trial.compute - budget) for trial in grid)
    assert abs(found.trial.compute - budget) <= nearest
    assert found.trial == trials.of(
        f"again {budget}", diffusers_hooks.first_block_cache(HOST, found.threshold)
    )


def test_dial_that_does_not_reach_the_budget_is_refused(trials: Trials):
    stiff = replace(FIRST_BLOCK, name="stiff", high=1e-3)
    with pytest.raises(OutOfReachError, match=r"the nearest computes 1\.000"):
        Tuner(trials).best(stiff, 0.5)


def test_trials_are_remembered(trials: Trials):
    made = trials.of("remembered", diffusers_hooks.first_block_cache(HOST, 0.3))
    again = replace(trials, known={})
    assert again.of("remembered", PLAIN.attach) == made
    assert again.of("another", PLAIN.attach) == Trial(compute=1.0, error=0.0)


def test_the_best_of_what_meets_the_budget_is_chosen():
    def chosen(*found: tuple[float, float]) -> tuple[float, float]:
        return choose(found, 0.5, lambda each: Trial(compute=each[0], error=each[1]))

    assert chosen((0.5, 3.0), (0.51, 2.0), (0.55, 1.0)) == (0.51, 2.0)
    assert chosen((0.5 + 2 * NEAR, 2.0), (0.5 - 1.5 * NEAR, 3.0)) == (0.5 - 1.5 * NEAR, 3.0)
    with pytest.raises(OutOfReachError, match=r"computes 0\.6"):
        chosen((0.5 + 1.5 * FAR, 1.0), (0.9, 0.1))


# ---------------------------------------------------------------------------- the whole


def test_every_policy_has_a_row_or_a_reason(bench: Bench, record: Record):
    rows = {row["policy"]: row for row in record.rows}
    refused = {row["policy"]: row["reason"] for row in record.refused}
    labels = set(families(bench, OURS))
    assert rows.keys() | refused.keys() == labels | {"plain"}
    assert not rows.keys() & refused.keys()
    assert all(is_peer(label) for label in refused)
    assert {f"smoothcache (K={max_lag})" for max_lag in MAX_LAGS} <= rows.keys()


def test_record_has_the_agreed_keys(record: Record):
    wanted = "modality model full_size solver evaluations policy ours compute seconds speedup "
    wanted += "of_limit rel_l2 rel_l2_spread ode_rel_l2 frechet budget"
    for row in record.rows:
        assert set(wanted.split()) <= set(row)
        assert row["of_limit"] == pytest.approx(row["speedup"] * row["compute"])
        assert row["ours"] or abs(row["compute"] - row["budget"]) <= max(FAR, 1 / STEPS)
    assert record.seeds == {"calibration": [0], "evaluation": [SEED, 2 * SEED]}
    json.loads(json.dumps(record.rows, allow_nan=False))


def test_all_checks_hold(record: Record):
    assert all(record.checks.values())
    assert len(record.checks) >= 4


def test_rows_are_sorted_by_budget_and_error(record: Record):
    keys = [(-row["budget"], row["rel_l2"]) for row in record.rows]
    assert keys == sorted(keys)
    plain = record.rows[0]
    assert (plain["policy"], plain["rel_l2"], plain["speedup"]) == ("plain", 0.0, 1.0)
    assert "psnr_db" not in plain
    assert all(row["rel_l2"] > 0.0 for row in record.rows[1:])


def test_our_schedules_are_measured_like_by_hand(
    bench: Bench, calibration: Calibration, record: Record
):
    (row,) = (row for row in record.rows if row["ours"])
    sampler = bench.of_batch(2)
    material = Material(calibration=calibration, sampler=sampler, seeds=[0])
    schedule = every_second(material, 0.5)
    errors = []
    for seed in (SEED, 2 * SEED):
        reference = sampler(seed)
        with cached_pipeline(sampler.pipe, schedule):
            errors.append(float(relative_l2(reference, sampler(seed)).mean()))
    assert row["policy"] == "every-second"
    assert row["rel_l2"] == pytest.approx(sum(errors) / 2, rel=1e-9)
    assert row["rel_l2_spread"] == pytest.approx(abs(errors[0] - errors[1]) / math.sqrt(2))
    assert row["predicted_compute"] == pytest.approx(row["compute"], rel=1e-9)
    assert row["bytes_peak"] > 0


def test_what_is_finished_is_kept(tmp_path: Path):
    quick = settings(tmp_path, only=QUICK)
    first = measure(IMAGE, quick, ours=OURS)
    kept, lost = sorted(work_folder(replace(quick, resume=True)).glob("block-*.pt"))
    lost.unlink()
    resumed = measure(IMAGE, replace(quick, resume=True), ours=OURS)
    pairs = list(zip(first.blocks[0.5], resumed.blocks[0.5], strict=True))
    again = [before["fora"].seconds == after["fora"].seconds for before, after in pairs]
    assert again == [True, False]
    for before, after in pairs:
        for label, cell in before.items():
            assert torch.equal(cell.latents, after[label].latents)
    time = kept.stat().st_mtime_ns
    measure(IMAGE, quick, ours=OURS)
    assert kept.stat().st_mtime_ns > time


def test_work_is_kept_apart_by_settings(tmp_path: Path):
    one, other = settings(tmp_path), settings(tmp_path, calibration_samples=3)
    assert work_folder(one) == work_folder(replace(one, budgets=(0.3,), resume=True))
    assert work_folder(one) != work_folder(other)
    (work_folder(one) / "trials.json").touch()
    assert list(work_folder(replace(one, resume=True)).iterdir())
    assert not list(work_folder(one).iterdir())


def test_exact_solution_is_computed_once(bench: Bench, plain: Run, tmp_path: Path):
    coarse, fine = (
        ode_solution(bench, samples=2, seed=SEED, steps=steps, folder=tmp_path)
        for steps in (12, 48)
    )
    assert relative_l2(fine, coarse).max() < relative_l2(fine, plain.latents).min()
    (path,) = (path for path in tmp_path.iterdir() if torch.equal(torch.load(path), fine))
    torch.save(torch.zeros(1), path)
    again = ode_solution(bench, samples=2, seed=SEED, steps=48, folder=tmp_path)
    assert torch.equal(again, torch.zeros(1))


def test_stochastic_solver_has_no_exact_solution(tmp_path: Path):
    given = settings(tmp_path, solver="sde-dpmsolver++", only=("fora",))
    record = to_record(given, measure(IMAGE, given))
    assert {row["solver"] for row in record.rows} == {"SDE-DPM-Solver++ 2M"}
    assert not any("ode_rel_l2" in row for row in record.rows)
    assert all(record.checks.values())


# ---------------------------------------------------------------------------- what is shown


def row(policy: str, budget: float, error: float, **more: object) -> dict[str, object]:
    given = {"policy": policy, "budget": budget, "compute": budget, "rel_l2": error, "ours": False}
    return given | more


ROWS = [
    row("plain", 1.0, 0.0, ode_rel_l2=0.03),
    row("good", 0.5, 0.01, ours=True),
    row("fair", 0.5, 0.02),
    row("late", 0.5, 0.001, compute=0.56),
    row("good", 0.25, 0.04, ours=True),
    row("fair", 0.25, 0.03),
]


def test_pivot_shows_errors_by_budget():
    assert pivot(ROWS).splitlines() == [
        "| policy | 0.5 | 0.25 |",
        "| --- | ---: | ---: |",
        "| late | 0.001 (at 0.56) | - |",
        "| **good** | **0.01** | 0.04 |",
        "| fair | 0.02 | **0.03** |",
    ]


def test_plot_has_a_line_for_every_policy():
    (axes,) = trade_off(ROWS).axes
    lines = {line.get_label(): line for line in axes.containers}
    assert lines.keys() == {"good", "fair", "late"}
    widths = {label: line[0].get_linewidth() for label, line in lines.items()}
    assert widths["good"] > 2 * widths["fair"]
    assert axes.get_yscale() == "log"


def test_record_is_written_with_its_table_and_plot(record: Record, tmp_path: Path):
    path = save(record, tmp_path)
    text = path.with_suffix(".md").read_text()
    assert path.name.startswith("quality-image-")
    assert json.loads(path.read_text())["rows"] == [dict(row) for row in record.rows]
    assert text.index(pivot(record.rows)) < text.index("All numbers:") < text.index("| plain |")
    assert f"]({path.with_suffix('.png').name})" in text
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_command_writes_a_record(tmp_path: Path):
    words = "quality image --solver dpmsolver++ --steps 5 --budget 0.6 --samples 2 --seed 7 "
    words += (
        f"--policy fora --calibration-samples 1 --reference-steps 6 "
        f"--work {tmp_path}/work --output {tmp_path}"
    )
    cli.main(words.split())
    (path,) = tmp_path.glob("quality-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["policy"] for row in rows] == ["plain", "fora"]
    assert rows[0]["solver"] == "DPM-Solver++ 2M"


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3}, "steps must be at least 4, got 3"),
        ({"samples": 1}, "samples must be at least 2, got 1"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"budgets": (0.5, 1.0)}, r"budgets are fractions in \(0, 1\), got \[0.5, 1.0\]"),
        ({"budgets": (0.5, 0.5)}, "budgets must be distinct"),
        ({"seeds": ()}, "seeds must be distinct"),
        ({"seeds": (0, 1)}, "seed 0 calibrates, so it cannot judge"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes)


def test_unknown_names_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no policy is called"):
        measure(IMAGE, settings(tmp_path, only=("nosuch",)))
    with pytest.raises(ValueError, match="no solver is called 'nosuch'"):
        load_bench(IMAGE, "digits", "nosuch", steps=STEPS, device="cpu")


def test_solvers_have_titles(bench: Bench):
    assert solver_title(bench.sampler.scheduler) == bench.solver.title == "DDIM"
