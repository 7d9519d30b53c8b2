"""The check for a machine with a GPU, run on the CPU with tiny models."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.bench.index import ANSWERS
from tools.bench.records import Record
from tools.bench.studies import gpu, gpu_quality
from tools.bench.studies.gpu import MODALITIES, Settings, measure
from tools.bench.studies.gpu_runs import Clock, OutOfTimeError
from tools.bench.studies.gpu_testbeds import cases

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde, of rounding
]
PEERS = {"dit-smoothcache", "cache-dit", "taylorseer", "first-block-cache", "magcache"}
KEYS = (
    "modality model full_size solver evaluations compiled policy setting ours compute milliseconds "
    "seconds speedup of_limit first_run_seconds rel_l2"
)


def records_of(settings: Settings) -> dict[tuple[str, str], Record]:
    """Return the last records of a check by what they are of."""
    return {(record.what, record.modality): record for record in measure(settings)}


@pytest.mark.slow
def test_small_check_runs_to_its_end():
    found = records_of(Settings(small=True, device="cpu", minutes=20.0))
    assert list(found) == [(w, m) for w in ("devices", "gpu") for m in MODALITIES]
    for modality in MODALITIES:
        record = found["gpu", modality]
        assert record.rows, record.refused
        assert all(record.checks.values())
        assert all(set(KEYS.split()) <= set(row) for row in record.rows)
        eager = [row for row in record.rows if row["compiled"] == "eager"]
        ours = [row for row in eager if row["ours"]]
        assert len(ours) == 5
        assert sum("overhead" in row for row in ours) == 1
        assert all(row["predicted_bytes"] == row["bytes_peak"] for row in ours)
        assert all(row["compute"] == pytest.approx(row["predicted_compute"]) for row in ours)
        named = {row["policy"] for row in (*eager, *record.refused)}
        peers = {"taylorseer"} if modality == "video" else PEERS
        assert named >= {"plain", "smoothcache", *peers}
    image = found["gpu", "image"]
    regional = [row for row in image.rows if row["compiled"] == "regional"]
    own = [row["policy"] for row in regional if row["policy"] != "cache-dit"]  # if installed
    assert own == ["plain", *["smoothcache"] * 5]
    assert all(row["graph_breaks"] == 0 and row["rel_l2"] < 1e-4 for row in regional if row["ours"])
    for modality in MODALITIES:
        record = found["devices", modality]
        assert len(record.rows) == 3, record.refused
        assert all(record.checks.values())
        plain, *others = record.rows
        assert plain["error_cpu"] == 0.0
        assert all(row["error_cpu"] > 0.01 for row in others)
        assert (
            ANSWERS["devices"]([dict(row) for row in record.rows])
            == "yes: plain latents 0 apart, errors of schedules 0.0%"
        )


def test_what_there_is_no_time_for_is_named():
    found = records_of(Settings(small=True, device="cpu", minutes=0.1))
    assert not any(record.rows for record in found.values())
    image = found["gpu", "image"]
    reasons = {(row["compiled"], row["setting"]): row["reason"] for row in image.refused}
    assert reasons == {
        ("eager", "image"): "not run: 0 s were left",
        ("regional", "image"): "not run: 0 s were left",
    }
    for modality in ("video", "audio"):
        assert [row["setting"] for row in found["gpu", modality].refused] == [modality]
    assert [row["reason"] for row in found["devices", "audio"].refused] == [
        "not run: 0 s were left"
    ]


def test_a_part_that_fails_is_named_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch):
    def broken() -> Any:
        raise ImportError("no such package")

    tried: list[str] = []
    monkeypatch.setattr(gpu_quality, "TRAINED", dict.fromkeys(MODALITIES, broken))
    monkeypatch.setattr(gpu, "testbeds", lambda *, small: {"image": broken, "audio": broken})
    monkeypatch.setattr(gpu, "cases", lambda names, *, small: [(n, "eager") for n in names])
    for record in measure(Settings(small=True, device="cpu")):
        tried.append(f"{record.what} {record.modality}")
        assert [row["reason"] for row in record.refused] == ["ImportError: no such package"]
    assert tried == [
        "devices image", "devices video", "devices audio", "gpu image", "gpu audio"
    ]  # fmt: skip


def test_a_device_that_errs_otherwise_does_not_agree(monkeypatch: pytest.MonkeyPatch):
    trained = gpu_quality.TRAINED["image"]()
    right = gpu_quality._latents  # pyright: ignore[reportPrivateUsage] to be put out of order
    runs: list[bool] = []

    def wrong(sampler: Any, schedule: Any, seeds: Any) -> torch.Tensor:
        runs.append(schedule is not None)
        broken = len(runs) > 3 and schedule is not None  # on the device, which comes last
        return right(sampler, schedule, seeds) * (1.1 if broken else 1.0)

    monkeypatch.setattr(gpu_quality, "_latents", wrong)
    rows = gpu_quality.compared(trained, device="cpu:0", steps=3, seeds=[0])
    assert [row["agrees"] for row in rows] == [True, False, False]
    assert ANSWERS["devices"]([dict(row) for row in rows]).startswith("NO: plain latents 0 apart")


def test_noise_is_drawn_on_the_cpu_wherever_it_is_asked_for():
    with gpu_quality.DrawnOnCpu():
        torch.manual_seed(3)
        asked = torch.randn([2, 3], device="meta")
        torch.manual_seed(3)
        plain = torch.randn(2, 3)
    assert asked.device.type == "meta"
    assert torch.equal(plain, torch.randn(2, 3, generator=torch.Generator().manual_seed(3)))


def test_a_record_is_replaced_by_what_knows_more(tmp_path: Path):
    first, *_, last = measure(Settings(small=True, device="cpu", minutes=0.1))
    path = first.save(tmp_path)
    assert last.save(tmp_path, instead=path) == path
    assert json.loads(path.read_text())["what"] == last.what
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_eager_runs_go_first_and_every_case_is_there():
    order = cases(["a", "b"], small=False)
    assert order[:3] == [("a", "eager"), ("b", "eager"), ("a", "regional")]
    assert sorted(order) == sorted(
        (name, way) for name in "ab" for way in ("eager", "regional", "whole", "graphs")
    )


def test_time_that_is_up_interrupts():
    clock = Clock(end=time.monotonic())
    with pytest.raises(OutOfTimeError), clock.interrupting():
        time.sleep(5.0)


def test_command_needs_nothing_to_say_what_it_does():
    script = Path(__file__).parents[4] / "tools" / "gpu_check.py"
    command = [sys.executable, "-I", "-S", str(script), "--help"]  # -S: without site-packages
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--wheels" in done.stdout
