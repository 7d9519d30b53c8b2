"""The commands of `smoothcache-video` on small models: Open-Sora's, and Wan's."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from kit.video_folders import SIDE
from kit.video_shell import PROMPTS, SIZE, STEPS, Shell
from PIL import Image, ImageSequence
from smoothcache_core import Calibration, Report, Schedule
from smoothcache_video import clip_files
from smoothcache_video.clip_files import pixels_of
from smoothcache_video.loading import load_pipeline
from smoothcache_video.sampling import prompt_sampler

GIF = ("--format", "gif")


def frames_of(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)])


def test_a_calibration_knows_the_kinds_of_parts(calibrated: Path):
    calibration = Calibration.load(calibrated)
    assert calibration.seeds == (0, 1)
    assert calibration.kinds[:2] == ("spatial_attn", "spatial_cross_attn")
    assert calibration.evaluations == STEPS


def test_a_transferred_calibration_plans_for_the_new_steps(shell: Shell, calibrated: Path):
    more, output = STEPS + 2, shell.folder / "t.safetensors"
    words = ("--model", shell.model, "--steps", more, "--output", output, *PROMPTS, *SIZE)
    assert f"to {more}, an estimate." in shell.run("transfer", calibrated, *words)
    schedule = shell.plan(output, "--compute", 0.5) / "auto-compute0.5.json"
    assert Schedule.load(schedule).evaluations == more


def test_what_a_fitted_schedule_was_measured_to_do(shell: Shell, planned: Path):
    output = shell.folder / "fitted.json"
    words = ("--model", shell.model, "--samples", 4, "--batch", 2, "--output", output)
    said = shell.run("fit", planned / "denoiser-compute0.5.json", *words, *PROMPTS, *SIZE)
    assert "Measured on 4 samples." in said


def test_a_schedule_changes_clips_only_where_it_reuses(shell: Shell, planned: Path):
    words = ("--samples", 2, "--batch", 2, "--steps", STEPS, *PROMPTS, *SIZE, *GIF)
    said, plain = shell.sample("plain", *words)
    assert "2 clips in" in said
    said, computed = shell.sample("all", *words, "--schedule", planned / "interval-1.json")
    assert "0 reused" in said
    said, reused = shell.sample("two", *words, "--schedule", planned / "interval-2.json")
    assert plain == computed
    assert all(one != other for one, other in zip(plain, reused, strict=True))


def test_clips_are_those_of_the_sampler(shell: Shell):
    words = ("--samples", 2, "--steps", 2, "--seed", 3, "--fps", 12, *PROMPTS, *SIZE, *GIF)
    _, files = shell.sample("s", *words)
    names = [file.name for file in sorted((shell.folder / "s").iterdir())]
    assert names == ["0000-a-fox.gif", "0001-a-seven-moving-left.gif"]
    pipe = load_pipeline(shell.model, device="cpu")
    sampler = prompt_sampler(
        pipe, conditions=("a seven moving left", "a fox"), steps=2, frames=3, fps=12
    )
    for seed, file in enumerate(files, start=3):
        (clip,) = sampler.decode(sampler(seed))
        assert frames_of(file).shape == (3, SIDE, SIDE, 3)
        assert np.abs(frames_of(file) - np.stack(pixels_of(clip)).astype(float)).max() < 24
        with Image.open(io.BytesIO(file)) as image:
            assert image.info["duration"] == 80


def test_files_are_named_as_vbench_reads_them(shell: Shell):
    words = ("--samples", 3, "--steps", 1, "--vbench", *PROMPTS, *SIZE, *GIF)
    shell.sample("v", *words)
    names = {file.name for file in (shell.folder / "v").iterdir()}
    clips = {"a seven moving left-0.gif", "a seven moving left-1.gif", "a fox-0.gif"}
    assert names == {*clips, "prompts.json"}
    asked = json.loads((shell.folder / "v" / "prompts.json").read_text())
    assert asked == {name: name.rsplit("-", 1)[0] for name in clips}


def test_schedules_are_compared_in_motion(shell: Shell, planned: Path):
    output = shell.folder / "e"
    schedules = (planned / "interval-1.json", planned / "interval-2.json")
    words = ("--model", shell.model, "--samples", 2, "--batch", 2, "--output", output)
    said = shell.run("evaluate", *schedules, *words, *PROMPTS, *SIZE, *GIF)
    report = Report.load(output / "report.json")
    same, reused = (report.row(file.stem).metrics for file in schedules)
    assert (same["ssim"].mean, same["motion_error"].mean) == (pytest.approx(1.0), 0.0)
    assert same["flicker_ratio"].mean == 1.0
    assert reused["motion_error"].mean > 0.0
    assert f"{reused['ssim'].mean:.3f}" in said
    assert {"flicker", "motion", "sharpness"} == set(report.row("plain").summaries)
    names = {file.name for file in output.iterdir()}
    assert {"report.md", "samples.png", "clips.gif", "clips", "skip-map-interval-2.png"} <= names
    text = (output / "report.md").read_text()
    assert "(clips.gif)" in text
    assert "second difference" in text
    clips = sorted((output / "clips").iterdir())
    assert [file.name for file in clips] == ["interval-1.gif", "interval-2.gif"]
    assert frames_of(clips[1].read_bytes()).shape == (3, 2 * 96 + 4, 3 * 96 + 8, 3)


def test_a_pipeline_of_two_calls_per_step_goes_the_whole_way(wan_folder: Path, tmp_path: Path):
    shell = Shell(model=wan_folder, folder=tmp_path)
    words = ("--prompt", "a fox", "--frames", 5, "--height", SIDE, "--width", SIDE)
    calibration = shell.calibrate("c.safetensors", *words, samples=1)
    assert Calibration.load(calibration).branches == ("cond", "uncond")
    schedule = shell.plan(calibration, "--interval", 2) / "interval-2.json"
    said, files = shell.sample("s", *words, *GIF, "--schedule", schedule)
    assert "reused" in said
    assert frames_of(files[0]).shape == (5, SIDE, SIDE, 3)


def test_mp4_without_pyav_is_refused_before_the_model_is_loaded(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clip_files, "find_spec", lambda name: None)
    message = shell.refused("sample", "--model", "nowhere", *PROMPTS, "--format", "mp4")
    assert "MP4 files are written by PyAV, which is not installed: pip install" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*PROMPTS, "--steps", 5), "is for 6 evaluations, but RectifiedFlowScheduler makes 5"),
        ((), "OpenSoraPipeline takes prompts: give at least one"),
        ((*PROMPTS, "--labels", "3"), "OpenSoraPipeline takes prompts, not class labels"),
        ((*PROMPTS, "--frames", 0), "--frames"),
        ((*PROMPTS, "--fps", 0), "--fps"),
        ((*PROMPTS, "--image", "nowhere.png"), "--image: there is no file 'nowhere.png'"),
        ((*PROMPTS, "--format", "avi"), "--format"),
        ((*PROMPTS, "--device", "quux"), "device 'quux' cannot be used"),
        ((*PROMPTS, "--model", "./nowhere"), "there is no model folder './nowhere'"),
        (("--model", "moving-digits", "--prompt", "a fox"), "does not know 'a fox'; ask for"),
    ],
)
def test_wrong_input_ends_in_one_line(
    shell: Shell, planned: Path, words: Sequence[object], message: str
):
    schedule = ("--schedule", planned / "interval-2.json")
    given = ("--model", shell.model, *schedule, "--output", shell.folder / "s", *words)
    assert message in shell.refused("sample", *given)


def test_a_picture_is_not_taken_by_a_model_of_prompts(shell: Shell):
    picture = shell.folder / "p.png"
    Image.new("RGB", (8, 8)).save(picture)
    words = ("--model", shell.model, *PROMPTS, "--image", picture)
    assert "makes videos from prompts alone; omit the image" in shell.refused("sample", *words)
    picture.write_text("no picture")
    assert "is no picture that can be read" in shell.refused("sample", *words)


def test_how_clips_are_written_is_no_option_of_calibrating(shell: Shell):
    words = ("--model", shell.model, *PROMPTS, *GIF)
    assert "Unknown option: --format" in shell.refused("calibrate", *words)
