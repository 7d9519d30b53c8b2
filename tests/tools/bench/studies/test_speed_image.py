import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from hypothesis import given, strategies as st

from tools.bench.models.dit_xl import Size
from tools.bench.models.image_policies import falling_lags, policies
from tools.bench.policies import Policy, evenly_spaced
from tools.bench.records import Record, common
from tools.bench.shared_weights import sharing
from tools.bench.studies.compile import measure_compile
from tools.bench.studies.speed import Settings, cost_of, count, measure_speed
from tools.bench.studies.speed_image import image_subject
from tools.bench.timing import Piece, judge, race

EVALUATIONS = 6
SMALL = Size(num_layers=2, num_attention_heads=2, attention_head_dim=8, sample_size=8)
CPU = torch.device("cpu")
OURS = [policy for policy in policies() if policy.ours]
SUBJECT = image_subject(SMALL)
ON_SHAPES = [p for p in policies() if not p.looks_at_data and "smoothcache" not in p.name]


@pytest.fixture(scope="module")
def model():
    return SUBJECT.build(CPU, torch.float32)


@pytest.fixture(scope="module")
def record():
    return measure_speed(SUBJECT, Settings(evaluations=EVALUATIONS, progress=False))


@pytest.mark.parametrize("policy", OURS, ids=lambda policy: policy.setting)
def test_our_macs_are_the_plain_ones_less_those_of_the_reused_sites(
    model: DiTTransformer2DModel, policy: Policy
):
    cost = cost_of(SUBJECT, model)
    setting = policy.setting
    kinds = [kind for kind in ("attn1", "ff") if kind in setting or "sites" in setting]
    zeros = {
        "all computed": 0,
        "all sites wrapped, one evaluation reused": 1,
        "whole evaluations at 0.25, filled": evenly_spaced(EVALUATIONS, 0.25).count(0),
    }
    reused = zeros.get(setting, falling_lags(EVALUATIONS).count(0))
    each = sum(site.macs for site in cost.sites if site.kind in kinds)
    saved = reused * (cost.total if "whole" in setting else each)
    assert sum(count(SUBJECT, model, policy, EVALUATIONS)) == EVALUATIONS * cost.total - saved


@pytest.mark.parametrize(
    "policy", [p for p in [*OURS, *ON_SHAPES] if "default" not in p.setting], ids=lambda p: p.key
)
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_counting_on_shapes_and_on_tensors_agree(model: DiTTransformer2DModel, policy: Policy):
    looking = replace(policy, looks_at_data=True)
    assert count(SUBJECT, model, policy, EVALUATIONS) == count(SUBJECT, model, looking, EVALUATIONS)


def test_predicted_compute_is_what_was_counted(record: Record):
    ours = [row for row in record.rows if row["ours"]]
    assert len(ours) == len(OURS)
    for row in ours:
        assert row["predicted_compute"] == pytest.approx(row["compute"], rel=1e-12)


def test_record_has_the_agreed_keys(record: Record):
    assert {"command", "date", "hardware", "versions", "commit", "seeds", "rows"} <= set(
        asdict(record)
    )
    assert not set(record.seeds["calibration"]) & set(record.seeds["evaluation"])
    wanted = (
        "modality model full_size solver evaluations policy ours compute seconds speedup of_limit"
    )
    for row in record.rows:
        assert set(wanted.split()) <= set(row)
        assert row["of_limit"] == pytest.approx(row["speedup"] * row["compute"])
        assert row["full_size"] is False


def test_what_refuses_is_reported_with_its_reason(record: Record):
    reasons = {(row["policy"], row["setting"]): row["reason"] for row in record.refused}
    assert "matches no module" in reasons["taylorseer", "default modules, order 1"]
    assert "returned (4, 8, 8, 8)" in reasons["fastercache", "default inputs"]
    assert len(record.rows) + len(record.refused) == len(policies())


def test_all_computed_gives_the_plain_sample(record: Record):
    assert record.checks["smoothcache (all computed) gives the sample of plain (-) bit for bit"]
    assert all(record.checks.values())


def test_records_are_not_overwritten(record: Record, tmp_path: Path):
    first, second = record.save(tmp_path), record.save(tmp_path)
    assert first != second
    assert json.loads(first.read_text())["rows"] == [dict(row) for row in record.rows]
    text = second.with_suffix(".md").read_text()
    assert all(f"| {row['policy']} | {row['setting']} |" in text for row in record.rows)


def test_columns_that_are_common_are_told_apart():
    assert common([{"a": 1, "b": 1}, {"a": 1, "b": 2}]) == {"a": 1}
    assert common([{"a": 1}, {}]) == {}


def test_file_name_tells_hardware_and_day(tmp_path: Path):
    record = Record(
        what="speed",
        modality="image",
        question="?",
        command="",
        date="2026-01-02T03:04:05",
        hardware="ACME CPU(R), 4 of 8 cores",
        versions={},
        commit="",
        seeds={},
        settings={},
        rows=[],
    )
    assert record.save(tmp_path).name == "speed-image-acme-cpu-r-4-of-8-cores-20260102.json"


def test_unknown_policy_is_refused():
    with pytest.raises(ValueError, match=r"no policy is called \['nosuch'\]"):
        measure_speed(SUBJECT, Settings(only=("nosuch",)))


def test_copies_share_their_weights(model: DiTTransformer2DModel):
    copy = sharing(model)
    pairs = zip(model.parameters(), copy.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not {id(m) for m in model.modules()} & {id(m) for m in copy.modules()}


def test_row_for_fifty_evaluations_is_the_published_pattern():
    row = falling_lags(50)
    computed = [i for i, entry in enumerate(row) if entry]
    assert len(computed) == 24
    assert np.diff(computed).tolist() == [4, 3, 3, *[2] * 19, 1]


@given(st.integers(min_value=4, max_value=200))
def test_first_and_last_evaluation_are_computed(evaluations: int):
    row = falling_lags(evaluations)
    assert len(row) == evaluations
    assert row[0] == row[-1] == 1
    assert "0000" not in "".join(map(str, row))


# ---------------------------------------------------------------------------- timing


Step = tuple[str, int | str]


class Logging:
    def __init__(self, log: list[Step], name: str):
        self.log, self.name = log, name

    def start(self):
        self.log.append((self.name, "start"))

    def evaluate(self, evaluation: int):
        self.log.append((self.name, evaluation))

    def advance(self, evaluation: int):
        pass


def logged(piece: Piece):
    log: list[Step] = []
    runs = {name: Logging(log, name) for name in "abc"}
    seconds = race(runs, evaluations=3, rounds=2, piece=piece, device=CPU, seed=0, progress=False)
    return log, seconds


def test_evaluations_go_in_lockstep():
    log, seconds = logged("evaluation")
    steps = [step for _, step in log]
    assert steps == 2 * ["start", "start", "start", 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(set(log[i : i + 3]) == {(n, log[i][1]) for n in "abc"} for i in range(0, 24, 3))
    assert {name: times.shape for name, times in seconds.items()} == dict.fromkeys("abc", (2, 3))
    assert all((times > 0).all() for times in seconds.values())


def test_runs_go_one_after_the_other():
    log, seconds = logged("run")
    runs = [log[i : i + 3] for i in (3, 6, 9, 15, 18, 21)]
    assert all([step for _, step in run] == [0, 1, 2] for run in runs)
    assert all(len({name for name, _ in run}) == 1 for run in runs)
    assert all(times.shape == (2, 1) for times in seconds.values())


def test_verdict_cancels_drift_and_drops_outliers():
    plain = np.geomspace(1.0, 10.0, 24).reshape(2, 12)
    kinds = ["full", "cheap"] * 6
    seconds = plain * np.tile([1.0, 0.25], 6)
    seconds[0, 3] *= 100.0
    verdict = judge(seconds, plain, kinds)
    assert verdict.relative == pytest.approx(0.625)
    assert verdict.ratios == pytest.approx({"full": 1.0, "cheap": 0.25})
    assert verdict.seconds == pytest.approx(0.625 * 12 * np.median(plain))
    assert verdict.low <= verdict.relative <= verdict.high


def test_verdict_refuses_times_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        judge(np.ones((1, 3)), np.ones((1, 4)), [0, 0, 0])


@pytest.mark.slow
def test_compiled_caching_has_no_breaks_and_the_eager_output():
    subject = image_subject(replace(SMALL, num_layers=1))
    settings = Settings(evaluations=EVALUATIONS, progress=False)
    record = measure_compile(subject, settings, backend="eager")
    ways = [(row["compiled"], row["policy"]) for row in record.rows]
    assert ways == [
        (w, p) for w in ("eager", "regional", "whole") for p in ("plain", "smoothcache")
    ]
    assert all(record.checks.values())
    graphs = {way: row["graphs"] for way, row in zip(ways, record.rows, strict=True)}
    assert graphs["eager", "plain"] == 0
    assert graphs["whole", "smoothcache"] == 3  # keep, reuse, and the last that is only computed
