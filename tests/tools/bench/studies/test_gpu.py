"""The check for a machine with a GPU, run on the CPU with tiny models."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.bench.studies.gpu import Settings, measure
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


@pytest.mark.slow
def test_small_check_runs_to_its_end():
    image, audio = measure(Settings(small=True, device="cpu", minutes=20.0))
    assert (image.modality, audio.modality) == ("image", "audio")
    for record in (image, audio):
        assert record.rows, record.refused
        assert record.what == "gpu"
        assert all(record.checks.values())
        assert all(set(KEYS.split()) <= set(row) for row in record.rows)
        eager = [row for row in record.rows if row["compiled"] == "eager"]
        ours = [row for row in eager if row["ours"]]
        assert len(ours) == 5
        assert sum("overhead" in row for row in ours) == 1
        assert all(row["predicted_bytes"] == row["bytes_peak"] for row in ours)
        assert all(row["compute"] == pytest.approx(row["predicted_compute"]) for row in ours)
        named = {row["policy"] for row in (*eager, *record.refused)}
        assert named >= {"plain", "smoothcache", *PEERS}
    regional = [row for row in image.rows if row["compiled"] == "regional"]
    assert [row["policy"] for row in regional] == ["plain", *["smoothcache"] * 5]
    assert all(row["graph_breaks"] == 0 and row["rel_l2"] < 1e-4 for row in regional)


def test_what_there_is_no_time_for_is_named():
    image, audio = measure(Settings(small=True, device="cpu", minutes=0.1))
    assert not image.rows
    reasons = {(row["compiled"], row["setting"]): row["reason"] for row in image.refused}
    assert reasons == {
        ("eager", "image"): "not run: 0 s were left",
        ("regional", "image"): "not run: 0 s were left",
    }
    assert [row["setting"] for row in audio.refused] == ["audio"]


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
