import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("stable_audio_tools")

from kit.audio_folders import save_stable_audio_tools
from smoothcache_core import Calibration, calibrate
from smoothcache_core.metrics import relative_l2
from smoothcache_core.sources import interval

from tools.bench import cli
from tools.bench.baselines import diffusers_hooks
from tools.bench.baselines.fora import fora
from tools.bench.baselines.ours import scheduled
from tools.bench.baselines.peers import quiet
from tools.bench.bench import Bench, load_bench, ode_solution
from tools.bench.models.audio import audio
from tools.bench.policies import fewer_steps, plain
from tools.bench.studies import targets
from tools.bench.studies.quality import measure
from tools.bench.studies.quality_record import to_record
from tools.bench.studies.quality_settings import Settings

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde, of rounding
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
    ),
]

STEPS, SEED, SAMPLES = 6, 1000, 2
AUDIO = audio()
HEARD = 1024
"""Audio samples of one sound: enough for the classifier."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    made = save_stable_audio_tools(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((made / "model_config.json").read_text())
    (made / "model_config.json").write_text(json.dumps(config | {"sample_size": HEARD}))
    return made


@pytest.fixture(scope="module")
def bench(folder: Path):
    return load_bench(AUDIO, str(folder), "dpmpp-3m-sde", steps=STEPS, device="cpu")


@pytest.fixture(scope="module")
def calibration(bench: Bench):
    sampler = bench.of_batch(SAMPLES)
    return calibrate(sampler, seeds=[0], max_lag=3, sensitivity=0, progress=False)


def settings(folder: Path, work: Path, **changes: object) -> Settings:
    small = Settings(
        model=str(folder),
        solver="dpmpp-3m-sde",
        steps=STEPS,
        budgets=(0.5,),
        samples=SAMPLES,
        seeds=(SEED, 2 * SEED),
        calibration_samples=SAMPLES,
        reference_steps=12,
        only=("fora", "fora+taylor", "fewer-steps"),
        work=work,
        progress=False,
    )
    return replace(small, **changes)


# ---------------------------------------------------------------------------- the bench


def test_all_macs_of_an_evaluation_are_counted(bench: Bench, calibration: Calibration):
    assert bench.plain_macs == STEPS * calibration.cost.total / SAMPLES


def test_settings_that_skip_nothing_give_the_plain_sample(bench: Bench, calibration: Calibration):
    everything = interval(1, evaluations=STEPS, kinds=calibration.kinds)
    (same, *_) = AUDIO.fewer(bench.sampler)["SDE-DPM-Solver++ 3M"].values()
    policies = [
        scheduled(everything),
        diffusers_hooks.taylorseer(AUDIO.host, everything, 2),
        fewer_steps(same, STEPS),
    ]
    expected = bench.run(plain, samples=SAMPLES, seed=SEED)
    for attach in policies:
        run = bench.run(attach, samples=SAMPLES, seed=SEED)
        assert torch.equal(run.latents, expected.latents)
        assert bench.compute(run) == 1.0


def test_taylorseer_of_order_0_is_reuse(bench: Bench, calibration: Calibration):
    schedule = fora(calibration, 0.6)
    ours, theirs, first = (
        bench.run(attach, samples=SAMPLES, seed=SEED)
        for attach in (
            scheduled(schedule),
            diffusers_hooks.taylorseer(AUDIO.host, schedule, 0),
            diffusers_hooks.taylorseer(AUDIO.host, schedule, 1),
        )
    )
    assert torch.equal(ours.latents, theirs.latents)
    assert ours.macs == theirs.macs == first.macs
    assert bench.compute(ours) == pytest.approx(schedule.compute_fraction(), rel=1e-9)
    assert not torch.equal(ours.latents, first.latents)


def test_mag_cache_calibrates_itself(bench: Bench):
    run = partial(bench.run, samples=SAMPLES, seed=0)
    with quiet():
        ratios = diffusers_hooks.mag_ratios(AUDIO.host, run)
    assert len(ratios) == STEPS
    assert ratios[0] == 1.0
    assert all(ratio > 0.0 for ratio in ratios)


def test_more_steps_come_nearer_to_the_exact_solution(folder: Path, tmp_path: Path):
    bench = load_bench(AUDIO, str(folder), "dpmpp-2m", steps=STEPS, device="cpu")
    fine = ode_solution(bench, samples=SAMPLES, seed=SEED, steps=64, folder=tmp_path)
    errors = [
        relative_l2(fine, replace(bench.of_batch(SAMPLES), steps=steps)(SEED)).max()
        for steps in (STEPS, 4 * STEPS)
    ]
    assert errors[1] < errors[0] / 4


def test_the_same_solver_of_diffusers_on_the_same_grid_gives_the_plain_sample(folder: Path):
    bench = load_bench(AUDIO, str(folder), "dpmpp-2m", steps=STEPS, device="cpu")
    other = AUDIO.others(bench.sampler)["DPM-Solver++ 2M"]["uniform in log-SNR"]
    run = bench.run(fewer_steps(other, STEPS), samples=SAMPLES, seed=SEED)
    expected = bench.run(plain, samples=SAMPLES, seed=SEED)
    assert run.macs == expected.macs
    assert relative_l2(expected.latents, run.latents).max() < 1e-5
    karras = AUDIO.others(bench.sampler)["DPM-Solver++ 2M"]["Karras"]
    another = bench.run(fewer_steps(karras, STEPS), samples=SAMPLES, seed=SEED)
    assert relative_l2(expected.latents, another.latents).max() > 1e-4


def test_unknown_solver_is_refused(folder: Path):
    with pytest.raises(ValueError, match="no solver is called 'nosuch'"):
        load_bench(AUDIO, str(folder), "nosuch", steps=STEPS, device="cpu")


# ---------------------------------------------------------------------------- the record


def test_record_of_a_stochastic_solver(folder: Path, tmp_path: Path):
    given = settings(folder, tmp_path)
    record = to_record(given, measure(AUDIO, given, ours={}))
    assert all(record.checks.values())
    assert record.modality == "audio"
    plain_row, *rows = record.rows
    assert {row["policy"] for row in rows} == {
        "fewer-steps (SDE-DPM-Solver++ 3M)",
        "fewer-steps (SDE-DPM-Solver++ 2M)",
        "fora",
        "fora+taylor (order 1)",
        "fora+taylor (order 2)",
    }
    assert plain_row["solver"] == "SDE-DPM-Solver++ 3M"
    assert "ode_rel_l2" not in plain_row
    wanted = "mel_l1 log_spectral_distance_db multi_resolution_stft si_sdr_db kl accuracy frechet"
    for row in rows:
        assert set(wanted.split()) <= set(row)
        assert row["mel_l1"] > 0.0
    json.loads(json.dumps(record.rows, allow_nan=False))


@pytest.mark.slow
def test_command_writes_a_record(folder: Path, tmp_path: Path):
    words = f"quality audio --model {folder} --solver dpmpp-2m --steps 5 --budget 0.6 "
    words += "--samples 2 --seed 7 "
    words += f"--policy fora --calibration-samples 1 --reference-steps 6 --work {tmp_path}/work "
    cli.main([*words.split(), "--output", str(tmp_path)])
    (path,) = tmp_path.glob("quality-audio-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["policy"] for row in rows] == ["plain", "fora"]
    assert rows[0]["solver"] == "DPM-Solver++ 2M"
    assert rows[0]["ode_rel_l2"] > 0.0


# ---------------------------------------------------------------------------- the SDE study


@pytest.mark.slow
def test_study_of_stochastic_solvers(folder: Path):
    study = targets.Settings(
        model=str(folder),
        steps=STEPS,
        samples=SAMPLES,
        seeds=(SEED,),
        calibration_samples=4,
        computes=(0.5,),
        solvers=("dpmpp-2m-sde",),
        progress=False,
    )
    rows, refused = targets.measure(study)
    assert not refused
    plain_row, *others = rows
    assert plain_row["target"] == "plain"
    fills: dict[str, set[str]] = {}
    for row in others:
        fills.setdefault(row["target"], set()).add(row["fill"])
    names = {rule.name for rule in targets.RULES}
    assert fills["sites"] == fills["blocks"] == names
    assert fills["evaluations"] == {"reuse", "taylor-1", *targets.PLANNED}
    assert all(row["compute"] <= 0.5 + 1e-9 for row in others)
    assert all(row["rel_l2"] > 0.0 and row["mel_l1"] > 0.0 for row in others)
    record = targets.to_record(study, rows, refused)
    path = targets.save(record, folder.parent)
    assert path.name.startswith("sde-audio-")
    assert targets.pivot(rows) in path.with_suffix(".md").read_text()
    assert record.seeds == {"calibration": [0], "evaluation": [SEED]}


def test_study_shows_errors_by_target_and_fill():
    def row(target: str, fill: str, budget: float, error: float, **more: object):
        known = {"solver": "a", "target": target, "fill": fill, "budget": budget}
        return {**known, "rel_l2": error, **more}

    rows = [
        {"solver": "a", "budget": 1.0, "target": "plain"},
        row("evaluations", "reuse", 0.5, 0.3),
        row("sites", "reuse", 0.5, 0.1, predicted_error=0.2),
        row("sites", "linear-2", 0.25, 0.4),
    ]
    assert targets.pivot(rows).splitlines() == [
        "| target | fill | a, 0.5 | a, 0.25 |",
        "| --- | --- | ---: | ---: |",
        "| sites | reuse | **0.1** (0.2) | - |",
        "| sites | linear-2 | - | **0.4** |",
        "| evaluations | reuse | 0.3 | - |",
    ]
