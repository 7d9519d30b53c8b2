import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.image_folders import save_dit
from kit.image_shell import STEPS, Shell
from smoothcache_core import Calibration, Report, Schedule, calibrate
from smoothcache_core.cli.calibrating import sensitivity_calls
from smoothcache_image import load_pipeline, sampler_of
from smoothcache_image.loading import SHIPPED

# ---------------------------------------------------------------------------- calibrate


def test_calibration_is_continued(shell: Shell):
    whole = Calibration.load(shell.calibrate("whole.safetensors", samples=3))
    parts = shell.calibrate("parts.safetensors", samples=1)
    said = shell.run(
        "calibrate", "--model", shell.model, "--samples", 3, "--steps", STEPS, "--output", parts,
        "--sensitivity", 0, "--max-lag", 3,
    )  # fmt: skip
    assert f"Continuing {parts}: 1 samples are there, 2 to go." in said
    assert Calibration.load(parts) == whole
    assert whole.seeds == (0, 1, 2)


def test_a_complete_calibration_is_not_repeated(shell: Shell, calibrated: Path):
    before = calibrated.read_bytes()
    given = ("--samples", 2, "--steps", STEPS, "--max-lag", 3, "--output", calibrated)
    said = shell.run("calibrate", "--model", shell.model, *given)
    assert "2 samples are there, 0 to go." in said
    assert calibrated.read_bytes() == before


OTHER_OPTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "model": (("--model", "no/model"), "cannot load model 'no/model'"),
    "steps": (("--steps", 5), "is for 6 evaluations, but DDIMScheduler makes 5"),
    "solver": (("--solver", "dpmsolver++"), "solver is 'DDIMScheduler"),
    "guidance": (("--guidance", 7.5), "guidance is "),
    "labels": (("--labels", "1"), "conditions is "),
    "lags": (("--max-lag", 2), "max_lag is 3 instead of 2"),
    "sensitivities": (("--sensitivity", 0), "it has sensitivities, which would be lost"),
    "batch": (("--batch", 2), "its runs are batches of 1, not of 2"),
}


@pytest.mark.parametrize("option", OTHER_OPTIONS)
def test_a_complete_calibration_of_something_else_is_no_answer(
    shell: Shell, calibrated: Path, option: str
):
    before = calibrated.read_bytes()
    words, message = OTHER_OPTIONS[option]
    given = ("--model", shell.model, "--samples", 2, "--steps", STEPS, "--max-lag", 3)
    assert message in shell.refused("calibrate", *given, "--output", calibrated, *words)
    assert calibrated.read_bytes() == before


def test_a_calibration_is_made_anew_if_asked_to(shell: Shell):
    file = shell.calibrate("c.safetensors", samples=1)
    assert Calibration.load(file).evaluations == STEPS
    again = ("--model", shell.model, "--samples", 1, "--sensitivity", 0, "--output", file)
    shell.refused("calibrate", *again, "--steps", 3)
    shell.run("calibrate", *again, "--steps", 3, "--force")
    assert Calibration.load(file).evaluations == 3


def test_nothing_is_overwritten_unless_asked_to(shell: Shell, calibrated: Path):
    """What is there is named before any work: the models do not exist."""
    file, folder = shell.folder / "half.json", shell.folder / "taken"
    shell.run("plan", calibrated, "--interval", 2, "-o", file)
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for words, output in (
        (("plan", calibrated, "--interval", 3), file),
        (("fit", file, "--model", "no/model"), file),
        (("transfer", calibrated, "--steps", 8, "--model", "no/model"), file),
        (("sample", "--model", "no/model"), folder),
        (("evaluate", file, "--model", "no/model"), folder),
    ):
        message = shell.refused(*words, "-o", output)
        assert f"'{output}' already exists; give --force" in message
        assert "cannot load model" not in message
    before = Schedule.load(file)
    shell.run("plan", calibrated, "--interval", 3, "-o", file, "--force")
    assert Schedule.load(file).rows != before.rows


def test_outputs_have_names_that_tell_what_they_are(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(shell.folder)
    small = ("--model", shell.model, "--samples", 1, "--sensitivity", 0)
    for steps in (3, 4):
        shell.run("calibrate", *small, "--steps", steps)
        shell.run("plan", f"calibration-dit-{steps}.safetensors", "--interval", 2)
    shell.run("calibrate", *small, "--steps", 3, "--solver", "dpmsolver++")
    file = Path("schedules/dit-3/interval-2.json")
    shell.run("sample", "--model", shell.model, "--samples", 1, "--schedule", file)
    assert sorted(str(p) for p in Path().rglob("*") if p.is_file() and p.suffix != ".png") == [
        "calibration-dit-3.safetensors",
        "calibration-dit-4.safetensors",
        "calibration-dit-dpmsolver++-3.safetensors",
        "schedules/dit-3/interval-2.json",
        "schedules/dit-4/interval-2.json",
    ]
    assert [p.name for p in Path().iterdir() if p.name.startswith("samples")] == [
        "samples-interval-2"
    ]


def test_batches_are_counted_as_samples(shell: Shell):
    path = shell.calibrate("c.safetensors", "--batch", 2, "--seed", 5, "--max-lag", 2, samples=4)
    calibration = Calibration.load(path)
    assert (calibration.samples, calibration.seeds) == (4, (5, 6))
    assert (calibration.evaluations, calibration.max_lag) == (STEPS, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch", 2, "--samples", 4), "its runs are batches of 1, not of 2"),
        (("--batch", 2, "--samples", 3), "--batch 2 must divide --samples 3"),
        (("--samples", 3, "--steps", 5), "is for 6 evaluations, but DDIMScheduler makes 5"),
        (("--samples", 3, "--max-lag", 1), "max_lag is 3 instead of 1"),
        (("--samples", 3, "--solver", "dpmsolver++"), "solver is 'DDIMScheduler"),
        (("--samples", 3, "--sensitivity", 0), "it has sensitivities, which would be lost"),
    ],
)
def test_a_calibration_is_not_continued_by_another(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    before = calibrated.read_bytes()
    given = ("--model", shell.model, "--steps", STEPS, "--max-lag", 3, "--output", calibrated)
    assert message in shell.refused("calibrate", *given, *words)
    assert calibrated.read_bytes() == before


@pytest.mark.parametrize("passes", ["batched", "sequential"])
def test_the_cost_of_sensitivities_is_the_calls_they_took(
    passes: str, dit_folder: Path, lumina2_folder: Path
):
    pipe: Any = load_pipeline(dit_folder if passes == "batched" else lumina2_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)

    def sample(seed: int) -> object:
        what: dict[str, Any] = {"class_labels": [0]}
        if passes == "sequential":  # its normalisation of guidance is not affine
            what = {"prompt": "a fox", "height": 64, "width": 64, "cfg_normalization": False}
        generator = torch.Generator().manual_seed(seed)
        return pipe(**what, generator=generator, num_inference_steps=STEPS).images

    branches = () if passes == "batched" else ("cond", "uncond")
    last = list(pipe.transformer.children())[-1]  # the output layer: called once in every call
    calls: list[int] = []
    last.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for sensitivity in (0, 1):
        calls.clear()
        calibration = calibrate(
            sampler_of(pipe, sample, branches=branches), seeds=range(2), max_lag=1,
            sensitivity=sensitivity, progress=False,
        )  # fmt: skip
        counts.append(len(calls))
        assert sensitivity_calls(calibration) == counts[-1] - counts[0]
    assert counts[1] > 2 * counts[0]


def test_calibrate_says_what_sensitivities_took_and_what_is_next(shell: Shell):
    output = shell.folder / "c.safetensors"
    words = ("--model", shell.model, "--samples", 1, "--steps", STEPS, "--output", output)
    said = next(line for line in shell.run("calibrate", *words).splitlines() if "Next:" in line)
    calls = sensitivity_calls(Calibration.load(output))
    assert said.startswith(f"Sensitivities took {calls} calls of the denoiser, {calls / STEPS:.1f}")
    assert said.endswith(f"Next: smoothcache-image plan {output} --compute 0.5, or --front")
    assert Calibration.load(output).max_lag == 12


def test_calibrate_says_why_there_are_no_sensitivities(tmp_path: Path):
    shell = Shell(model=save_dit(tmp_path / "clipping", clip=True), folder=tmp_path)
    path = shell.calibrate("none.safetensors")
    assert Calibration.load(path).dynamics is None
    words = ("--model", shell.model, "--samples", 1, "--steps", STEPS, "--max-lag", 1)
    said = shell.run("calibrate", *words, "--output", tmp_path / "c.safetensors")
    assert "No sensitivities were measured: the solver is not affine" in said
    assert "only published rules can be planned. Next: " in said
    message = shell.refused("plan", tmp_path / "c.safetensors", "--compute", 0.5)
    assert "holds no sensitivities (the solver is not affine" in message
    assert "--compute with --rule smooth" in message


# ---------------------------------------------------------------------------- sample


def test_a_schedule_changes_pictures_only_where_it_reuses(shell: Shell, planned: Path):
    words = ("--samples", 2, "--batch", 2, "--steps", STEPS)
    said, plain = shell.sample("plain", *words)
    assert "everything computed" in said
    said, computed = shell.sample("all", *words, "--schedule", planned / "interval-1.json")
    assert "24 site calls computed, 0 reused" in said
    said, reused = shell.sample("two", *words, "--schedule", planned / "interval-2.json")
    assert "16 site calls computed, 8 reused" in said
    assert plain == computed
    assert all(one != other for one, other in zip(plain, reused, strict=True))


def test_steps_are_those_of_the_schedule(shell: Shell, planned: Path):
    schedule = planned / "interval-2.json"
    _, pictures = shell.sample("own", "--schedule", schedule)
    _, same = shell.sample("given", "--schedule", schedule, "--steps", STEPS)
    assert pictures == same


def test_files_are_named_by_the_class(shell: Shell):
    shell.sample("s", "--samples", 3, "--steps", 1, "--labels", "owl,fox")
    names = [file.name for file in sorted((shell.folder / "s").iterdir())]
    assert names == ["0000-owl.png", "0001-fox.png", "0002-owl.png"]


def test_prompts_are_sampled_too(lumina2_folder: Path, tmp_path: Path):
    shell = Shell(model=lumina2_folder, folder=tmp_path)
    prompts = ("--prompt", "a fox", "--prompt", "an owl", "--size", 64)
    calibration = shell.calibrate("c.safetensors", *prompts)
    assert Calibration.load(calibration).branches == ("cond", "uncond")
    schedule = shell.plan(calibration, "--interval", 2) / "interval-2.json"
    _, plain = shell.sample("plain", "--samples", 2, "--steps", STEPS, *prompts)
    said, reused = shell.sample("two", "--samples", 2, "--schedule", schedule, *prompts)
    assert len(plain) == len(reused) == 2
    assert plain != reused
    assert "0001-an-owl.png" in {file.name for file in (tmp_path / "two").iterdir()}
    counts = re.search(r"(\d+) site calls computed, (\d+) reused", said)
    assert counts is not None
    assert int(counts[1]) == 2 * int(counts[2])


def test_skipped_evaluations_are_counted(shell: Shell, planned: Path):
    said, _ = shell.sample("s", "--schedule", planned / "denoiser-compute0.5.json")
    assert "3 evaluations computed, 3 filled; 0.500 of the MACs" in said


def test_another_solver_is_remarked_on(shell: Shell, planned: Path):
    words = ("--schedule", planned / "interval-2.json", "--solver", "dpmsolver++")
    said, _ = shell.sample("s", *words)
    assert (
        "smoothcache-image: note: this run is not what the schedule was planned for: solver" in said
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 5), "is for 6 evaluations, but DDIMScheduler makes 5 in 5 steps"),
        (("--labels", "7"), "classes '7' are not among 0-2"),
        (("--prompt", "fox"), "takes class labels, not prompts"),
        (("--device", "quux"), "device 'quux' cannot be used"),
        (("--dtype", "int8"), 'Invalid value "int8" for --dtype. Choose from: "auto"'),
        (("--samples", 0), "--samples"),
        (("--wrong",), "Unknown option: --wrong"),
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


def test_a_schedule_of_another_model_is_refused(shell: Shell, lumina2_folder: Path, planned: Path):
    given = ("--model", lumina2_folder, "--prompt", "fox", "--size", 64)
    schedule = ("--schedule", planned / "interval-2.json", "--output", shell.folder / "s")
    message = shell.refused("sample", *given, *schedule)
    assert (
        "model_class is 'Lumina2Transformer2DModel' instead of 'DiTTransformer2DModel'" in message
    )


def test_an_output_that_cannot_be_written_is_told(shell: Shell):
    blocked = shell.folder / "file"
    blocked.write_text("")
    words = ("--steps", 1, "--output", blocked / "s")
    assert "file" in shell.refused("sample", "--model", shell.model, *words)


# ---------------------------------------------------------------------------- evaluate


def test_evaluate_writes_a_report(shell: Shell, calibrated: Path, planned: Path):
    output = shell.folder / "evaluation"
    said = shell.run(
        "evaluate", planned / "interval-1.json", planned / "interval-2.json", "--model",
        shell.model, "--samples", 4, "--batch", 2, "--calibration", calibrated, "--output", output,
    )  # fmt: skip
    report = Report.load(output / "report.json")
    assert [row.policy for row in report.rows] == ["plain", "interval-1", "interval-2"]
    assert report.seeds == (1000, 1001)
    assert report.num_samples == 4
    assert report.row("interval-1").rel_l2 == 0.0
    assert report.row("interval-2").rel_l2 > 0.0
    assert report.row("interval-1").psnr_db == float("inf")
    assert report.row("interval-2").accuracy is None
    assert "interval-2" in said
    names = {file.name for file in output.iterdir()}
    assert {"report.md", "samples.png", "error-curves.png", "skip-map-interval-2.png"} <= names
    assert "enter the autoencoder's decoder" in (output / "report.md").read_text()


def test_evaluate_shows_predictions_and_draws_what_else_there_is(
    shell: Shell, calibrated: Path, planned: Path
):
    record = {
        "rows": [
            {"policy": "plain", "evaluations": STEPS, "compute": 1.0, "rel_l2": 0.0},
            {"policy": "fora", "ours": False, "compute": 0.5, "rel_l2": 0.3},
        ]
    }
    peers = shell.folder / "quality-image-a.json"
    peers.write_text(json.dumps(record))
    file = planned / "denoiser-compute0.5.json"
    words = ("--model", shell.model, "--samples", 3)
    said = shell.run("evaluate", file, *words, "--output", shell.folder / "alone")
    report = Report.load(shell.folder / "alone" / "report.json")
    row = report.row("denoiser-compute0.5")
    promise = Schedule.load(file).prediction
    assert promise is not None
    assert row.prediction == promise
    assert row.ours
    assert row.rel_l2_low is not None
    assert f"{promise.error:.2g}" in said
    assert f"{row.rel_l2_low:.2g}-" in said
    assert report.calibration_samples is None
    more = ("--calibration", calibrated, "--peers", shell.folder / "quality-*.json")
    shell.run("evaluate", file, *words, *more, "--output", shell.folder / "all")
    names = ("compute-and-error.png", "predicted-and-measured.png")
    alone, both = (
        [(shell.folder / folder / name).read_bytes() for name in names]
        for folder in ("alone", "all")
    )
    assert alone[0] != both[0]
    assert alone[1] == both[1]
    assert Report.load(shell.folder / "all" / "report.json").calibration_samples == 2


def test_what_cannot_be_drawn_is_refused_before_sampling(
    shell: Shell, calibrated: Path, planned: Path
):
    file = planned / "interval-2.json"
    other = shell.folder / "other.json"
    schedule = Schedule.load(file)
    fingerprint = schedule.fingerprint.changed(config_hash="another")
    schedule.changed(fingerprint=fingerprint).save(other)
    record = shell.folder / "record.json"
    rows = [
        {"policy": "plain", "evaluations": 50, "compute": 1.0, "rel_l2": 0.0},
        {"policy": "fora", "ours": False, "compute": 0.5, "rel_l2": 0.3},
    ]
    record.write_text(json.dumps({"rows": rows}))
    for words, message in [
        ((other, "--calibration", calibrated), "is not planned from"),
        ((file, "--peers", shell.folder / "no*.json"), "--peers: no file is like"),
        ((file, "--peers", file), "is no record of a benchmark"),
        ((file, "--peers", record), "is of 50 evaluations, not of 6"),
    ]:
        assert message in shell.refused("evaluate", *words, "--model", "./nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_digits_of_every_shipped_model_are_recognised(name: str, tmp_path: Path):
    shell = Shell(model=Path(name), folder=tmp_path)
    schedule = shell.plan(shell.calibrate(), "--interval", 2) / "interval-2.json"
    output = tmp_path / "evaluation"
    shell.run("evaluate", schedule, "--model", name, "--samples", 10, "--output", output)
    report = Report.load(output / "report.json")
    accuracies = [row.accuracy for row in report.rows]
    assert all(accuracy is not None and accuracy >= 0.5 for accuracy in accuracies)
    assert all(row.frechet is not None for row in report.rows)
    assert report.seeds == (1000,)
    assert "that the packaged classifier takes for the digit" in (output / "report.md").read_text()


def test_seeds_of_the_calibration_cannot_judge(shell: Shell, planned: Path):
    words = ("--model", shell.model, "--seed", 1, "--output", shell.folder / "e")
    smooth = planned / "smooth-compute0.7.json"
    message = shell.refused("evaluate", smooth, *words)
    assert (
        "seeds [1] were used to calibrate or fit 'smooth-compute0.7', so they cannot evaluate it"
        in message
    )


def test_schedules_need_names_of_their_own(shell: Shell, planned: Path):
    file = planned / "interval-2.json"
    message = shell.refused("evaluate", file, file, "--model", shell.model)
    assert "need different file names" in message
