import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
from kit.audio_folders import save_stable_audio_tools
from kit.audio_models import LATENTS, PATCH, SAMPLE_RATE, stable_audio_tools_config
from kit.audio_shell import STEPS, Shell
from smoothcache_audio import load_model, prompt_sampler, stable_audio_tools
from smoothcache_core import Calibration, Report, Schedule, transfer

# -------------------------------------------------------------- calibrate, transfer, plan, fit


def test_calibration_is_continued(shell: Shell):
    whole = Calibration.load(shell.calibrate("whole.safetensors", samples=3))
    shell.calibrate("parts.safetensors", samples=1)
    parts = shell.calibrate("parts.safetensors", samples=3)
    assert Calibration.load(parts) == whole
    assert whole.seeds == (0, 1, 2)
    assert whole.kinds == ("self_attn", "cross_attn", "ff")


def test_calibration_knows_its_solver(shell: Shell):
    words = ("--solver", "dpmpp-2m", "--sigma-min", 0.1, "--sigma-max", 50)
    calibration = Calibration.load(shell.calibrate("c.safetensors", *words, samples=1))
    assert calibration.fingerprint.solver == "dpmpp-2m(sigma_min=0.1, sigma_max=50)"


def test_several_evaluations_in_a_step(shell: Shell):
    solver = ("--solver", "k-heun")
    calibration = shell.calibrate("c.safetensors", *solver, samples=1)
    assert Calibration.load(calibration).evaluations == 2 * STEPS - 1
    schedule = shell.plan(calibration, "--interval", 2) / "interval-2.json"
    said, _ = shell.sample("s", *solver, "--schedule", schedule)
    assert "36 site calls computed, 30 reused" in said
    words = ("sample", "--model", shell.model, "--schedule", schedule, *solver, "--steps", 5)
    assert "but k-heun(sigma_min=0.3, sigma_max=500) makes 9 in 5 steps; set the steps to 6" in (
        shell.refused(*words)
    )


def test_a_transferred_calibration_plans_for_the_new_steps(shell: Shell, calibrated: Path):
    more, output = STEPS + 2, shell.folder / "t.safetensors"
    words = ("--model", shell.model, "--steps", more, "--output", output)
    said = shell.run("transfer", calibrated, *words)
    assert f"{output}: transferred from {STEPS} evaluations to {more}, an estimate." in said
    assert f"Next: smoothcache-audio plan {output} --compute 0.5" in said
    model = load_model(shell.model, device="cpu")
    sampler = prompt_sampler(model, conditions=range(10), steps=more)
    expected = transfer(Calibration.load(calibrated), sampler)
    assert Calibration.load(output) == expected
    schedule = shell.plan(output, "--compute", 0.5) / "auto-compute0.5.json"
    assert Schedule.load(schedule).evaluations == more
    said, _ = shell.sample("s", "--schedule", schedule)
    assert f"{Schedule.load(schedule).compute_fraction():.3f} of the MACs" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--steps requires an argument"),
        (("--steps", 13), "from 4 to 2 times as many; calibrated are 6, the new run has 13"),
        (
            ("--steps", 8, "--solver", "dpmpp-2m"),
            "the solver is 'dpmpp-2m' instead of 'dpmpp-3m-sde'",
        ),
        (("--steps", 8, "--seconds", 0.5), "the new run's latent has shape"),
    ],
)
def test_what_cannot_be_transferred_to_writes_nothing(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    output = shell.folder / "t.safetensors"
    given = (calibrated, "--model", shell.model, "--output", output, *words)
    assert message in shell.refused("transfer", *given)
    assert not output.exists()


def test_solvers_of_several_evaluations_in_a_step_are_not_transferred(shell: Shell):
    words = ("--solver", "k-heun")
    calibration = shell.calibrate("c.safetensors", *words, samples=1, sensitivity=1)
    output = shell.folder / "t.safetensors"
    given = (calibration, "--model", shell.model, "--steps", 8, "--output", output)
    message = shell.refused("transfer", *given, *words)
    assert "solvers of several evaluations per step cannot be transferred" in message
    assert not output.exists()


def test_what_a_fitted_schedule_was_measured_to_do(shell: Shell, planned: Path):
    output = shell.folder / "fitted.json"
    words = ("--model", shell.model, "--samples", 4, "--batch", 2, "--output", output)
    said = shell.run("fit", planned / "denoiser-compute0.5.json", *words)
    prediction = Schedule.load(output).prediction
    assert prediction is not None
    assert prediction.measured
    assert "Measured on 4 samples." in said


# ---------------------------------------------------------------------------- sample


def heard(files: Sequence[bytes]) -> list[Any]:
    return [soundfile.read(io.BytesIO(file), dtype="int16") for file in files]


def test_a_schedule_changes_sounds_only_where_it_reuses(shell: Shell, planned: Path):
    words = ("--samples", 2, "--batch", 2, "--steps", STEPS)
    said, plain = shell.sample("plain", *words)
    assert "everything computed" in said
    assert "2 sounds in" in said
    said, computed = shell.sample("all", *words, "--schedule", planned / "interval-1.json")
    assert "36 site calls computed, 0 reused" in said
    said, reused = shell.sample("two", *words, "--schedule", planned / "interval-2.json")
    assert "24 site calls computed, 12 reused" in said
    assert plain == computed
    assert all(one != other for one, other in zip(plain, reused, strict=True))


def test_sounds_are_those_of_the_sampler(shell: Shell):
    _, files = shell.sample("s", "--samples", 2, "--steps", 2, "--seed", 3, "--labels", "7,4-5")
    names = [file.name for file in sorted((shell.folder / "s").iterdir())]
    assert names == ["0000-7.wav", "0001-4.wav"]
    model = load_model(shell.model, device="cpu")
    sampler = prompt_sampler(model, conditions=[7, 4, 5], steps=2)
    for seed, (sound, rate) in enumerate(heard(files), start=3):
        assert rate == SAMPLE_RATE
        expected = (sampler.decode(sampler(seed))[0, 0] * 32767).round()
        assert sound.tolist() == expected.tolist()
        assert len(sound) == LATENTS * PATCH


@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning")  # of torchsde
def test_prompts_are_sampled_by_a_pipeline_of_diffusers(pipeline_folder: Path, tmp_path: Path):
    shell = Shell(model=pipeline_folder, folder=tmp_path)
    prompts = ("--prompt", "a dog", "--prompt", "rain")
    calibration = shell.calibrate("c.safetensors", *prompts)
    assert Calibration.load(calibration).kinds == ("attn1", "attn2", "ff")
    schedule = shell.plan(calibration, "--interval", 2) / "interval-2.json"
    _, plain = shell.sample("plain", "--samples", 2, "--steps", STEPS, *prompts)
    said, reused = shell.sample("two", "--samples", 2, "--schedule", schedule, *prompts)
    assert "48 site calls computed, 24 reused" in said
    assert plain != reused
    names = [file.name for file in sorted((tmp_path / "two").iterdir())]
    assert names == ["0000-a-dog.wav", "0001-rain.wav"]
    for words, message in [
        ((), "this model takes prompts: give at least one"),
        (("--labels", "3", *prompts), "this model takes prompts, not class labels"),
        (("--solver", "dpmpp-2m", *prompts), "solver must be 'default', not 'dpmpp-2m'"),
        (("--library", "stable-audio-tools"), "it has no model_config.json"),
        (("--seconds", 1, *prompts), "sounds of up to 0.016 seconds, not of 1"),
        (("--steps", 5, "--schedule", schedule, *prompts), "is for 6 evaluations, but CosineDPM"),
    ]:
        assert message in shell.refused("sample", "--model", pipeline_folder, *words)


def test_seconds_set_the_length(shell: Shell):
    seconds = 20 * PATCH / SAMPLE_RATE
    _, (file,) = shell.sample("s", "--steps", 2, "--seconds", seconds)
    ((sound, _),) = heard([file])
    assert len(sound) == 20 * PATCH


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 5), "is for 6 evaluations, but dpmpp-3m-sde(sigma_min=0.3, sigma_max=500)"),
        (("--labels", "12"), "classes '12' are not among 0-9"),
        (("--labels", "four"), "'four' is no class of this model; give numbers, ranges such as"),
        (("--prompt", "a dog"), "this model takes class labels, not prompts"),
        (("--solver", "k-dpm-adaptive"), "chooses the number of evaluations at run time"),
        (("--solver", "euler"), "'euler' does not sample this model, whose objective is 'v'"),
        (("--steps", 1), "'dpmpp-3m-sde' makes at least 2 steps, got 1"),
        (("--sigma-min", 600), "the noise must go from sigma_max down to sigma_min"),
        (("--seconds", 0), "a positive number of seconds"),
        (("--library", "diffusers"), "no model folder for diffusers: it has no model_index.json"),
        (("--device", "quux"), "device 'quux' cannot be used"),
        (("--model", "./nowhere"), "there is no model folder './nowhere'"),
        (("--schedule", "nowhere.json"), "cannot read schedule 'nowhere.json'"),
    ],
)
def test_wrong_input_ends_in_one_line(
    shell: Shell, planned: Path, words: Sequence[object], message: str
):
    schedule = ("--schedule", planned / "interval-2.json")
    given = ("--model", shell.model, *schedule, "--output", shell.folder / "s", *words)
    assert message in shell.refused("sample", *given)
    assert not (shell.folder / "s").exists()


def test_evaluations_that_no_steps_make_are_refused(shell: Shell, planned: Path):
    words = ("--model", shell.model, "--schedule", planned / "interval-2.json")
    message = shell.refused("sample", *words, "--solver", "k-heun")
    assert "solver 'k-heun' never makes 6 evaluations" in message


def test_a_schedule_of_another_model_is_refused(shell: Shell, planned: Path):
    other = save_stable_audio_tools(shell.folder / "other", diffusion={"depth": 1})
    words = ("--model", other, "--schedule", planned / "interval-2.json")
    assert "config_hash is" in shell.refused("sample", *words, "--output", shell.folder / "s")
    assert not (shell.folder / "s").exists()


def test_missing_stable_audio_tools_is_told_before_anything_is_done(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stable_audio_tools, "_NEEDED", ("einops", "no_such_package"))
    output = shell.folder / "out"
    for words in (("demo",), ("sample", "--model", shell.model)):
        message = shell.refused(*words, "--output", output)
        assert "needs stable-audio-tools, of which no_such_package cannot be found" in message
        assert "install it with: pip install" in message
    assert not output.exists()


def test_a_model_of_another_kind_is_refused(shell: Shell):
    folder = shell.folder / "unet"
    folder.mkdir()
    config = stable_audio_tools_config()
    config["model"]["diffusion"]["type"] = "adp_cfg_1d"
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    message = shell.refused("calibrate", "--model", folder, "--output", shell.folder / "c")
    assert "only 'diffusion_cond' models that denoise by 'dit', a transformer" in message


# ---------------------------------------------------------------------------- evaluate


def test_evaluate_writes_a_report_pictures_and_sounds(
    shell: Shell, calibrated: Path, planned: Path
):
    output = shell.folder / "evaluation"
    said = shell.run(
        "evaluate", planned / "interval-1.json", planned / "interval-2.json", "--model",
        shell.model, "--samples", 4, "--batch", 2, "--calibration", calibrated, "--output", output,
    )  # fmt: skip
    report = Report.load(output / "report.json")
    assert [row.policy for row in report.rows] == ["plain", "interval-1", "interval-2"]
    assert (report.seeds, report.num_samples) == ((1000, 1001), 4)
    same, reused = (report.row(name).metrics for name in ("interval-1", "interval-2"))
    for name in ("rel_l2", "log_spectral_distance_db", "mel_l1", "multi_resolution_stft"):
        assert same[name].mean == 0.0
        assert reused[name].mean > 0.0
    assert same["si_sdr_db"].mean == float("inf")
    assert report.row("interval-2").accuracy is None
    assert f"{reused['log_spectral_distance_db'].mean:.1f}" in said
    names = {file.name for file in output.iterdir()}
    assert {"report.md", "samples.png", "waveforms.png", "skip-map-interval-2.png"} <= names
    text = (output / "report.md").read_text()
    assert "log_spectral_distance_db" in text
    assert "waveforms.png" in text
    sounds = sorted((output / "sounds").iterdir())
    assert [file.name for file in sounds] == ["interval-1.wav", "interval-2.wav", "plain.wav"]
    one, two, plain = heard([file.read_bytes() for file in sounds])
    assert len(plain[0]) == 4 * LATENTS * PATCH
    assert one[0].tolist() == plain[0].tolist()
    assert two[0].tolist() != plain[0].tolist()


def test_seeds_of_the_calibration_cannot_judge(shell: Shell, planned: Path):
    words = ("--model", shell.model, "--seed", 1, "--output", shell.folder / "e")
    message = shell.refused("evaluate", planned / "denoiser-compute0.5.json", *words)
    assert (
        "seeds [1] were used to calibrate or fit 'denoiser-compute0.5', so they cannot evaluate it"
        in message
    )
