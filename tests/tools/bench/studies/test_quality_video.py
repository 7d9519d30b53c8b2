"""The quality benchmark of video, on a small pipeline of the real classes."""

import json
from pathlib import Path

import pytest
import torch
from kit.video_folders import save_open_sora
from smoothcache_core import Calibration, calibrate

from tools.bench import cli
from tools.bench.baselines import diffusers_hooks
from tools.bench.baselines.fora import fora
from tools.bench.baselines.ours import scheduled
from tools.bench.baselines.pyramid import Broadcast, broadcasts, pyramid_schedule
from tools.bench.baselines.teacache import changes_of, fitted_polynomial, teacache
from tools.bench.bench import Bench, load_bench
from tools.bench.models.video import VIDEO
from tools.bench.models.video_policies import RANKS, TEA
from tools.bench.policies import plain
from tools.bench.studies.quality import measure
from tools.bench.studies.quality_record import to_record
from tools.bench.studies.quality_settings import VideoSettings

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
    ),
]
STEPS, SEED, SAMPLES = 10, 1000, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_sora(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def bench(folder: Path) -> Bench:
    return load_bench(VIDEO, str(folder), "default", steps=STEPS, device="cpu")


@pytest.fixture(scope="module")
def calibration(bench: Bench) -> Calibration:
    sampler = bench.of_batch(SAMPLES)
    return calibrate(sampler, seeds=[0], max_lag=3, sensitivity=0, progress=False)


def settings(folder: Path, work: Path, *only: str) -> VideoSettings:
    return VideoSettings(
        model=str(folder),
        steps=STEPS,
        budgets=(0.6,),
        samples=SAMPLES,
        seeds=(SEED, 2 * SEED),
        calibration_samples=SAMPLES,
        reference_steps=12,
        only=only,
        work=work,
        progress=False,
    )


# ---------------------------------------------------------------------------- baselines


def test_pyramid_broadcasts_spatial_attention_most_often(calibration: Calibration):
    schedule = pyramid_schedule(calibration, RANKS, Broadcast(ranges=(2, 3, 4), whole=True))
    assert schedule.rows["spatial_attn"] == (1, 1, 1, 0, 1, 0, 1, 0, 1, 1)
    assert schedule.rows["temporal_attn"] == (1, 1, 1, 0, 0, 1, 0, 0, 1, 1)
    assert schedule.rows["spatial_cross_attn"] == schedule.rows["temporal_cross_attn"]
    assert schedule.rows["temporal_cross_attn"] == (1, 1, 1, 0, 0, 0, 1, 0, 1, 1)
    assert all(schedule.rows["spatial_mlp"])


def test_pyramid_as_published_leaves_both_ends_alone(calibration: Calibration):
    first, *_ = broadcasts()
    assert first == Broadcast(ranges=(2, 4, 6))
    row = pyramid_schedule(calibration, RANKS, first).rows["spatial_attn"]
    assert row == (1, 1, 0, 1, 0, 1, 1, 1, 1, 1)


def test_pyramid_is_stretched_to_less_compute(calibration: Calibration):
    found = [
        pyramid_schedule(calibration, RANKS, setting).compute_fraction() for setting in broadcasts()
    ]
    assert found[0] == max(found)
    assert min(found) < 0.65


def test_teacache_that_never_skips_gives_the_plain_sample(bench: Bench):
    never, always = (teacache(TEA, [1.0, 0.0], threshold) for threshold in (0.0, 1e9))
    expected = bench.run(plain, samples=SAMPLES, seed=SEED)
    run = bench.run(never, samples=SAMPLES, seed=SEED)
    assert torch.equal(run.latents, expected.latents)
    assert bench.compute(run) == 1.0
    least = bench.run(always, samples=SAMPLES, seed=SEED)
    assert 2 / STEPS < bench.compute(least) < 0.5  # both ends, and what is around the blocks


def test_teacache_fits_the_change_of_the_output_to_that_of_the_input(bench: Bench):
    changes = changes_of(TEA, lambda attach: bench.run(attach, samples=SAMPLES, seed=0))
    assert len(changes) == STEPS - 1
    polynomial = fitted_polynomial(changes)
    assert len(polynomial) == 5
    assert all(torch.tensor(polynomial).isfinite())


def test_taylorseer_is_on_all_sites(bench: Bench, calibration: Calibration):
    schedule = fora(calibration, 0.6)
    ours, theirs = (
        bench.run(attach, samples=SAMPLES, seed=SEED)
        for attach in (scheduled(schedule), diffusers_hooks.taylorseer(VIDEO.host, schedule, 0))
    )
    assert torch.equal(ours.latents, theirs.latents)
    assert ours.macs == theirs.macs


# ---------------------------------------------------------------------------- the record


FEW = {"fewer-steps (rectified flow)": "fewer-steps", "pab": "pab"}
MORE = {"teacache": "teacache", "fora": "fora", "fora+taylor (order 2)": "fora+taylor"}


@pytest.mark.parametrize("policies", [FEW, pytest.param(MORE, marks=pytest.mark.zoo)])
def test_record_of_policies_in_motion(folder: Path, tmp_path: Path, policies: dict[str, str]):
    given = settings(folder, tmp_path, *policies.values())
    record = to_record(given, measure(VIDEO, given, ours={}))
    assert all(record.checks.values())
    first, *rows = record.rows
    assert set(policies) <= {row["policy"] for row in rows}
    assert first["solver"] == "rectified flow"
    wanted = "psnr_db ssim motion_error flicker_ratio flicker motion_off direction_accuracy frechet"
    for row in rows:
        assert set(wanted.split()) <= set(row)
        assert row["motion_error"] > 0.0
        assert len(row["flicker_of_seeds"]) == 2
    assert first["flicker_off"] == pytest.approx(0.0, abs=1e-6)
    assert first["ode_rel_l2"] > 0.0
    json.loads(json.dumps(record.rows, allow_nan=False))


def test_unknown_solver_is_refused(folder: Path):
    with pytest.raises(ValueError, match="the model has one solver, 'default', not 'ddim'"):
        load_bench(VIDEO, str(folder), "ddim", steps=STEPS, device="cpu")


@pytest.mark.slow
def test_command_writes_a_record(folder: Path, tmp_path: Path):
    words = f"quality video --model {folder} --steps 5 --budget 0.6 --samples 2 --seed 7 "
    words += f"--policy fora --calibration-samples 1 --reference-steps 6 --work {tmp_path}/work "
    cli.main([*words.split(), "--no-progress", "--threads", "1", "--output", str(tmp_path)])
    (path,) = tmp_path.glob("quality-video-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["policy"] for row in rows] == ["plain", "fora"]
