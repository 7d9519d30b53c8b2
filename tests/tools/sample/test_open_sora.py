"""The sampling script of Open-Sora, in each implementation: plain, calibrated, by a schedule."""

from pathlib import Path
from typing import Any

import cyclopts
import pytest
from kit.open_sora_installed import install_version_1, install_version_2
from kit.video_folders import save_open_sora
from PIL import Image
from smoothcache_core import Schedule
from smoothcache_core.errors import CommandError, PipelineError

from tools.sample import open_sora as script

STEPS = 8
pytestmark = pytest.mark.filterwarnings(
    "ignore:a run of 8 evaluations", "ignore:only .* samples", "ignore:the predicted error"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_sora(tmp_path_factory.mktemp("models") / "open-sora")


@pytest.fixture(params=["smoothcache-video", "opensora-1.2", "opensora-2.0"])
def settings(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return the options of a small model of each library."""
    file = tmp_path / "settings.py"
    file.write_text("")
    models = {"smoothcache-video": str(folder), "opensora-1.2": None, "opensora-2.0": str(file)}
    if request.param == "opensora-1.2":
        install_version_1(monkeypatch)
    if request.param == "opensora-2.0":
        install_version_2(monkeypatch)
    sizes = {"height": 16, "width": 16, "frames": 5, "fps": 10.0, "prompt": "a fox"}
    return {"library": request.param, "model": models[request.param], "device": "cpu", **sizes}


def pictures(file: Path) -> list[bytes]:
    with Image.open(file) as clip:
        count = getattr(clip, "n_frames", 1)
        return [(clip.seek(number), clip.convert("RGB").tobytes())[1] for number in range(count)]


def test_what_was_planned_once_is_sampled_by_again(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = [tmp_path / f"{name}.gif" for name in ("first", "again", "plain")]
    schedule = tmp_path / "twice.json"
    script.main(**settings, steps=STEPS, speedup=1.8, seeds=2, schedule=schedule, output=files[0])
    script.main(**settings, schedule=schedule, output=files[1])
    script.main(**settings, steps=STEPS, output=files[2])
    assert [str(file) in capsys.readouterr().out for file in files[2:]] == [True]
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
    script.main(
        library="opensora-1.2", height=32, width=16, frames=17, steps=2, device="cpu",
        output=tmp_path / "a.gif",
    )  # fmt: skip
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
    script.main(
        prompt="A boat.", library="opensora-2.0", model=str(file), height=32, width=16, frames=9,
        steps=2, guidance=7.5, device="cpu", output=tmp_path / "a.gif",
    )  # fmt: skip
    (given,) = asked
    assert given["text"] == ["A boat. 24 FPS. 4 motion score."]
    assert (given["height"], given["width"], given["num_frames"]) == (32, 16, 9)
    assert given["channel"] == 16
    assert given["method"] == "i2v"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"speedup": 2.0}, "say where to with --schedule FILE"),
        ({"height": 20}, "multiples of 8"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_loaded(
    given: dict[str, Any], message: str
):
    with pytest.raises(CommandError, match=message):
        script.main(**given)


@pytest.mark.parametrize("library", ["opensora-1.2", "opensora-2.0"])
def test_an_installation_that_is_not_there_is_named(library: Any):
    with pytest.raises(PipelineError, match=f"version {library[-3:]}.*; --library smoothcache-vid"):
        script.main(library=library, device="cpu")


def test_version_2_needs_its_settings(monkeypatch: pytest.MonkeyPatch):
    install_version_2(monkeypatch)
    with pytest.raises(PipelineError, match="give --model the settings of its own script"):
        script.main(library="opensora-2.0", device="cpu")


def test_the_script_shows_its_help(capsys: pytest.CaptureFixture[str]):
    app = cyclopts.App(name="open_sora.py")
    app.default(script.main)
    app.help_print([])
    shown = capsys.readouterr().out
    for option in ("--library", "--schedule", "--speedup", "--prompt", "--frames"):
        assert option in shown
