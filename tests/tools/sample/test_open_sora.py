"""The sampling script of Open-Sora, in each implementation: plain, calibrated, by a schedule."""

from pathlib import Path

import pytest
from kit.open_sora_installed import install_version_1, install_version_2
from kit.scripts import refused, run
from kit.video_folders import save_open_sora
from PIL import Image
from smoothcache_core import Schedule

from tools.sample import open_sora as script

STEPS = 8
pytestmark = pytest.mark.filterwarnings(
    "ignore:a run of 8 evaluations", "ignore:only .* samples", "ignore:the predicted error"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_sora(tmp_path_factory.mktemp("models") / "open-sora")


@pytest.fixture(params=["smoothcache-video", "opensora-1.2", "opensora-2.0"])
def words(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    """Return the options of a small model of each library."""
    file = tmp_path / "settings.py"
    file.write_text("")
    models = {"smoothcache-video": (folder,), "opensora-1.2": (), "opensora-2.0": (file,)}
    if request.param == "opensora-1.2":
        install_version_1(monkeypatch)
    if request.param == "opensora-2.0":
        install_version_2(monkeypatch)
    sizes = ("--height", 16, "--width", 16, "--frames", 5, "--fps", 10, "--prompt", "a fox")
    model = [("--model", each) for each in models[request.param]]
    return ("--library", request.param, "--device", "cpu", *sizes, *(w for m in model for w in m))


def pictures(file: Path) -> list[bytes]:
    with Image.open(file) as clip:
        count = getattr(clip, "n_frames", 1)
        return [(clip.seek(number), clip.convert("RGB").tobytes())[1] for number in range(count)]


def test_what_was_planned_once_is_sampled_by_again(
    words: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = [tmp_path / f"{name}.gif" for name in ("first", "again", "plain")]
    schedule = tmp_path / "twice.json"
    made = ("--steps", STEPS, "--speedup", 1.8, "--runs", 2, "--schedule", schedule)
    run(script, *words, *made, "--output", files[0])
    run(script, *words, "--schedule", schedule, "--output", files[1])
    run(script, *words, "--steps", STEPS, "--output", files[2])
    assert f"everything computed, in {files[2]}" in capsys.readouterr().out
    first, again, plain = map(pictures, files)
    assert first == again
    assert first != plain
    planned = Schedule.load(schedule)
    assert planned.evaluations == STEPS
    assert planned.fingerprint.guidance == {"guidance_scale": 7.0}
    assert planned.cost is not None


def test_version_1_is_asked_for_what_its_own_script_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked = install_version_1(monkeypatch)
    sizes = ("--height", 32, "--width", 16, "--frames", 17, "--steps", 2, "--device", "cpu")
    run(script, "--library", "opensora-1.2", *sizes, "--output", tmp_path / "a.gif")
    text, vae, denoiser, rflow = asked
    assert text["from_pretrained"] == "DeepFloyd/t5-v1_1-xxl"
    assert vae["from_pretrained"] == "hpcai-tech/OpenSora-VAE-v1.2"
    assert denoiser["from_pretrained"] == "hpcai-tech/OpenSora-STDiT-v3"
    assert denoiser["input_size"] == (5, 4, 2)
    assert denoiser["caption_channels"] == 12
    assert rflow["use_timestep_transform"]
    assert rflow["cfg_scale"] == 7.0


def test_version_2_is_asked_for_what_its_own_script_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked = install_version_2(monkeypatch)
    file = tmp_path / "settings.py"
    file.write_text("")
    sizes = ("--height", 32, "--width", 16, "--frames", 9, "--steps", 2, "--guidance", 7.5)
    run(
        script, "--prompt", "A boat.", "--library", "opensora-2.0", "--model", file, *sizes,
        "--device", "cpu", "--output", tmp_path / "a.gif",
    )  # fmt: skip
    (given,) = asked
    assert given["text"] == ["A boat. 24 FPS. 4 motion score."]
    assert (given["height"], given["width"], given["num_frames"]) == (32, 16, 9)
    assert given["channel"] == 16
    assert given["method"] == "i2v"


def test_sides_are_multiples_of_what_the_autoencoder_makes_of_a_pixel():
    assert "multiples of 8" in refused(script, "--height", 20)


@pytest.mark.parametrize("library", ["opensora-1.2", "opensora-2.0"])
def test_an_installation_that_is_not_there_is_named(library: str):
    told = refused(script, "--library", library, "--device", "cpu")
    assert f"version {library[-3:]}" in told
    assert "; --library smoothcache-video" in told
    assert "leave out --library" in refused(script, "--library", library, "--small")


def test_version_2_needs_its_settings(monkeypatch: pytest.MonkeyPatch):
    install_version_2(monkeypatch)
    told = refused(script, "--library", "opensora-2.0", "--device", "cpu")
    assert "give --model the settings of its own script" in told


def test_the_script_shows_its_help(capsys: pytest.CaptureFixture[str]):
    run(script, "--help")
    shown = capsys.readouterr().out
    for option in ("--library", "--schedule", "--speedup", "--prompt", "--frames"):
        assert option in shown
