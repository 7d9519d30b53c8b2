from dataclasses import replace

import pytest
import torch
from smoothcache_core import Schedule

from tools.bench import cli
from tools.bench.baselines.ours import scheduled
from tools.bench.bench import Bench, load_bench
from tools.bench.models.image import IMAGE
from tools.bench.policies import plain
from tools.bench.records import Record
from tools.bench.stepping import HaltedSampler, halted
from tools.bench.studies.seconds import CONTROL, PLAIN, Settings, measure

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
    ),
]

STEPS, SEED = 6, 1000
SETTINGS = Settings(
    model="digits",
    solver="ddim",
    steps=STEPS,
    batch=2,
    computes=(0.5,),
    policies=("planned-denoiser", "planned-sites"),
    calibration_samples=2,
    rounds=2,
    progress=False,
)
HALF = Schedule(evaluations=STEPS, rows={"denoiser": (1, 0) * 3})


@pytest.fixture(scope="module", params=("ddim", "dpmsolver++"))
def bench(request: pytest.FixtureRequest) -> Bench:
    return load_bench(IMAGE, "digits", request.param, steps=STEPS, device="cpu")


@pytest.fixture(scope="module")
def record() -> Record:
    return measure(IMAGE, SETTINGS)


def run_once(run: HaltedSampler, evaluations: int = STEPS) -> None:
    run.start()
    for evaluation in range(evaluations):
        run.evaluate(evaluation)
        run.advance(evaluation)


# ---------------------------------------------------------------------------- stopped samplers


def test_samplers_take_turns_and_give_what_they_give_alone(bench: Bench):
    ways = {"plain": plain, "half": scheduled(HALF)}
    alone = {name: bench.run(attach, samples=2, seed=SEED) for name, attach in ways.items()}
    assert not torch.equal(alone["plain"].latents, alone["half"].latents)
    with (
        ways["plain"](bench.of_batch(2)) as one,
        ways["half"](bench.of_batch(2)) as other,
        halted(one.sampler, SEED) as first,
        halted(other.sampler, SEED) as second,
    ):
        for _ in range(2):
            for run in (first, second):
                run.start()
            for evaluation in range(STEPS):
                for run in (first, second):
                    run.evaluate(evaluation)
                    run.advance(evaluation)
            assert torch.equal(first.latents, alone["plain"].latents)
            assert torch.equal(second.latents, alone["half"].latents)


@pytest.mark.parametrize("evaluations", [0, 2, STEPS])
def test_denoiser_is_as_before_wherever_a_run_ends(bench: Bench, evaluations: int):
    sampler = bench.of_batch(1)
    before = dict(vars(sampler.model))
    with halted(sampler, SEED) as run:
        run_once(run, evaluations)
    assert vars(sampler.model) == before
    assert torch.equal(sampler(SEED), bench.of_batch(1)(SEED))


def test_run_has_no_more_evaluations_than_it_has(bench: Bench):
    with halted(bench.of_batch(1), SEED) as run:
        run_once(run)
        with pytest.raises(ValueError, match=f"ended before evaluation {STEPS}"):
            run.evaluate(STEPS)
        run.start()
        run.evaluate(0)
        with pytest.raises(ValueError, match="has not ended"):
            _ = run.latents


def test_error_of_the_denoiser_reaches_who_asks(bench: Bench):
    sampler = bench.of_batch(1)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("broken")

    sampler.model.forward = broken
    with halted(sampler, SEED) as run, pytest.raises(RuntimeError, match="broken"):
        run.evaluate(0)
    assert sampler.model.forward is broken


# ---------------------------------------------------------------------------- the record


def test_record_holds_the_plain_model_twice_and_every_plan(record: Record):
    rows = {row["policy"]: row for row in record.rows}
    assert list(rows) == [PLAIN, CONTROL, "planned-denoiser 0.5", "planned-sites 0.5"]
    assert rows[PLAIN]["compute"] == rows[CONTROL]["compute"] == rows[PLAIN]["speedup"] == 1.0
    assert rows["planned-denoiser 0.5"]["compute"] == 0.5
    assert 0.3 < rows["planned-sites 0.5"]["compute"] <= 0.5
    assert [row["ours"] for row in record.rows] == [False, False, True, True]
    assert record.checks
    assert all(record.checks.values())
    assert not set(record.seeds["calibration"]) & set(record.seeds["evaluation"])
    for row in record.rows:
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["of_limit"] == pytest.approx(row["speedup"] * row["compute"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ("plans",)}, r"no plan is called \['plans'\]; there are \['planned', "),
        ({"computes": (0.5, 1.0)}, r"computes are fractions in \(0, 1\), got \[0.5, 1.0\]"),
        ({"computes": ()}, r"got \[\]"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"steps": 3}, "steps must be at least 4, got 3"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changes)


def test_modality_that_is_none_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["seconds", "video"])
    assert ended.value.code
    assert 'Unknown command "video"' in " ".join(capsys.readouterr().err.split())


def test_impossible_settings_end_the_command_with_one_line():
    with pytest.raises(SystemExit, match=r"tools\.bench: rounds must be at least 1, got 0"):
        cli.main(["seconds", "image", "--rounds", "0"])
