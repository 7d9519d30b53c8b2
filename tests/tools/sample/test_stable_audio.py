import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from kit.audio_folders import save_stable_audio, save_stable_audio_open
from kit.audio_shell import STEPS, Shell
from kit.scripts import run

from tools.sample import stable_audio as script

PROMPT = "a dog"
SECONDS = 0.016


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "stable-audio-tools": save_stable_audio_open(place / "open"),
        "diffusers": save_stable_audio(place / "pipe"),
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of stable-audio-tools' text encoder
@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning")
@pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")
@pytest.mark.parametrize("library", ["stable-audio-tools", "diffusers"])
def test_a_schedule_of_the_command_line_serves_the_library_itself(
    library: Any,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    model = folders[library]
    monkeypatch.chdir(model.parent)
    shell = Shell(model=model, folder=tmp_path)
    words = ("--library", library, "--prompt", PROMPT, "--seconds", SECONDS, "--guidance", 7)
    planned = shell.plan(shell.calibrate("c.safetensors", *words, samples=1), "--interval", 2)
    given = ("--model", model, "--library", library, "--prompt", PROMPT, "--device", "cpu")
    sounds = []
    for name, by in (("plain", ()), ("cached", ("--schedule", planned / "interval-2.json"))):
        file = tmp_path / f"{name}.wav"
        run(script, *given, "--steps", STEPS, "--seconds", SECONDS, *by, "--output", file)
        assert str(file) in capsys.readouterr().out
        sounds.append(soundfile.read(file)[0])
    plain, cached = sounds
    assert plain.shape == cached.shape
    assert plain.shape[0] >= SECONDS * 8000
    assert (plain != cached).any()


def test_the_script_shows_its_help():
    command = [sys.executable, "-m", "tools.sample.stable_audio", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--library", "--schedule", "--prompt", "--seconds"):
        assert option in done.stdout
