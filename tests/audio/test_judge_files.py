import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.audio_shell import Shell
from kit.clap_folder import save_clap
from smoothcache_audio import judge_files as script, load_clap, save_wav, waveform_metrics
from smoothcache_audio.judge_command import Judge
from smoothcache_audio.judge_files import judge_files
from smoothcache_core.errors import EvaluationError
from torch import Tensor

RATE = 8_000


def save(folder: Path, *sounds: Tensor, rate: int = RATE) -> Path:
    for index, sound in enumerate(sounds):
        save_wav(sound, folder / f"{index}.wav", sample_rate=rate)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    """Two sounds of different length, plain and changed."""
    plain = [0.1 * torch.randn(1, length) for length in (1000, 1500)]
    changed = [sound + 0.01 * torch.randn_like(sound) for sound in plain]
    return {
        "plain": save(tmp_path / "plain", *plain),
        "cached": save(tmp_path / "cached", *changed),
    }


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, list[float]]:
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {
        line[0]: [float(value) for value in line[1:]]
        for line in lines
        if len(line) > 1 and line[1][-1].isdigit()
    }


def test_files_of_one_name_are_compared(
    folders: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    judge_files(Judge(**folders))
    found = shown(capsys)
    pairs = [[script.read(folders[key] / f"{i}.wav").waveform for key in folders] for i in (0, 1)]
    metrics = waveform_metrics(RATE)
    assert list(found) == list(metrics)
    for name, metric in metrics.items():
        expected = sum(metric(*pair).item() for pair in pairs) / 2
        assert found[name] == [pytest.approx(expected, rel=1e-3)]


def test_clap_scores_are_those_of_both_folders(
    folders: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = save_clap(tmp_path / "clap")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog\ntwo cats\n")
    judge_files(Judge(**folders, prompts=prompts, clap=str(model)))
    found = shown(capsys)["clap"]
    clap = load_clap(model)
    for key, value in zip(folders, found, strict=True):
        scores = [
            clap.score(script.read(folders[key] / f"{i}.wav").waveform, [text], sample_rate=RATE)
            for i, text in enumerate(["a dog", "two cats"])
        ]
        assert value == pytest.approx(torch.cat(scores).mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "package"),
    [({"kl_passt": True}, "hear21passt"), ({"recordings": "plain"}, "torchopenl3")],
)
def test_a_missing_package_is_told_before_anything_is_judged(
    folders: dict[str, Any],
    settings: dict[str, Any],
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, package, None)
    settings = {key: folders.get(str(value), value) for key, value in settings.items()}
    with pytest.raises(EvaluationError, match=f"needs the package '{package}'"):
        judge_files(Judge(**folders, **settings))
    assert capsys.readouterr().out == ""


def test_folders_that_do_not_fit_are_refused(folders: dict[str, Any], tmp_path: Path):
    plain = folders["plain"]
    with pytest.raises(EvaluationError, match="there are no WAV files in"):
        judge_files(Judge(plain, tmp_path / "nowhere"))
    with pytest.raises(EvaluationError, match=r"only one of the folders has 1\.wav"):
        judge_files(Judge(plain, save(tmp_path / "fewer", torch.zeros(1, 1000))))
    other = save(tmp_path / "other", torch.zeros(1, 1000), torch.zeros(1, 1500), rate=16_000)
    with pytest.raises(EvaluationError, match=r"0\.wav: sample rates 8000 and 16000"):
        judge_files(Judge(plain, other))
    (tmp_path / "prompts.txt").write_text("one\n")
    with pytest.raises(EvaluationError, match="2 sounds need as many prompts, got 1"):
        judge_files(Judge(plain, plain, prompts=tmp_path / "prompts.txt"))


def test_the_command_judges_and_says_what_is_wrong_in_one_line(
    folders: dict[str, Any], tmp_path: Path
):
    shell = Shell(model=tmp_path, folder=tmp_path)
    said = shell.run("judge", folders["plain"], folders["cached"])
    assert "si_sdr_db" in said
    assert "there are no WAV files" in shell.refused("judge", tmp_path, tmp_path)
    assert "--cached requires an argument" in shell.refused("judge", tmp_path)
