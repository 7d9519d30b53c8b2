"""What the sampling scripts have in common: options, refusals, and a dry run of small models."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from kit.scripts import refused, run
from kit.sharing import FRONT
from smoothcache_core import Schedule
from smoothcache_core.schedule import Cost, Front

from tools.sample import dit, open_sora, stable_audio

SCRIPTS = {"dit": dit, "open_sora": open_sora, "stable_audio": stable_audio}
ENDINGS = {"dit": ".png", "open_sora": ".gif", "stable_audio": ".wav"}
HALF = Schedule(
    evaluations=4,
    rows={"denoiser": (1, 0, 1, 0)},
    cost=Cost(total=10, sites=(), output_bytes=8),
)
COMMON = [
    "--schedule",
    "--speedup",
    "--runs",
    "--steps",
    "--guidance",
    "--seed",
    "--model",
    "--small",
    "--compare",
    "--device",
    "--output",
    "--library",
]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning"),  # torchsde, of rounding
    pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning"),
]
script = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@script
def test_all_have_the_same_options(script: ModuleType, capsys: pytest.CaptureFixture[str]):
    run(script, "--help")
    shown = capsys.readouterr().out
    assert [name for name in COMMON if name not in shown] == []
    assert re.search("plain,? (or )?by a schedule", shown)


@script
def test_a_dry_run_samples_by_a_shared_schedule_and_plain(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name = script.__name__.rpartition(".")[2]
    shared = Front(schedules={"half": HALF}).save_pretrained(tmp_path / "shared")
    files = [tmp_path / f"{each}{ENDINGS[name]}" for each in ("cached", "plain", "cached-plain")]
    small = ("--small", "--steps", HALF.evaluations, "--device", "cpu")
    run(script, *small, "--schedule", shared, "--speedup", 2, "--compare", "--output", files[0])
    told = capsys.readouterr().out
    assert "2 evaluations computed, 2 filled; 0.500 of the MACs, in " in told
    assert " s plain, " in told
    assert f" times as long, in {files[2]}" in told
    run(script, *small, "--output", files[1])
    cached, plain, again = (file.read_bytes() for file in files)
    assert cached != plain == again


@script
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--speedup", 2), "--speedup needs --schedule"),
        (("--compare",), "name one with --schedule"),
        (("--small", "--model", "x"), "--small samples the model that comes with the package"),
        (("--schedule", "none.json"), "cannot read schedule 'none.json'"),
        (("--schedule", "there.json", "--speedup", 2), "'there.json' is there already"),
        (("--schedule", "shared", "--speedup", 9), "no schedule of a speed-up of at least 9"),
        (("--output", "there.json/x.gif"), "cannot write to"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(
    script: ModuleType,
    words: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("{}")
    FRONT.save_pretrained("shared")
    assert message in refused(script, *words)
