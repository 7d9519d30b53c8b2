import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from smoothcache_core import Calibration, Report, Schedule
from smoothcache_image._cli import app
from smoothcache_image._loading import SHIPPED
from typer.testing import CliRunner

COMMANDS = ("demo", "calibrate", "plan", "sample", "evaluate")
STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands with one model in one folder."""

    model: Path
    folder: Path

    def run(self, *words: object, status: int = 0) -> str:
        """Run a command and return its output, after checking its status."""
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == status, result.output
        return result.output

    def refused(self, *words: object) -> str:
        """Run a command that must be refused in one line, and return that line."""
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 2, result.output
        last = result.stderr.splitlines()[-1]
        assert last.startswith("smoothcache-image: ")
        assert "Traceback" not in result.output
        return last

    def calibrate(self, name: str = "c.safetensors", *words: object, samples: int = 2) -> Path:
        output = self.folder / name
        self.run(
            "calibrate", "--model", self.model, "--samples", samples, "--steps", STEPS,
            "--output", output, *words,
        )  # fmt: skip
        return output

    def plan(self, calibration: Path, *words: object) -> Path:
        output = self.folder / "schedules"
        self.run("plan", calibration, "--output", output, *words)
        return output

    def sample(self, name: str, *words: object) -> tuple[str, list[bytes]]:
        """Return what a command says and the pictures it writes."""
        output = self.folder / name
        said = self.run("sample", "--model", self.model, "--output", output, *words)
        return said, [file.read_bytes() for file in sorted(output.iterdir())]


@pytest.fixture
def shell(dit_folder: Path, tmp_path: Path) -> Shell:
    return Shell(model=dit_folder, folder=tmp_path)


@pytest.fixture(scope="module")
def calibrated(dit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file of the seeds 0 and 1."""
    return Shell(model=dit_folder, folder=tmp_path_factory.mktemp("calibrated")).calibrate()


@pytest.fixture(scope="module")
def planned(dit_folder: Path, calibrated: Path) -> Path:
    """A folder with the schedules interval-1 to interval-3."""
    shell = Shell(model=dit_folder, folder=calibrated.parent)
    intervals = ("--interval", 1, "--interval", 2, "--interval", 3)
    return shell.plan(calibrated, *intervals, "--compute", 0.7)


# ---------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)])
def test_help_is_shown(words: Sequence[str]):
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert f"Usage: smoothcache-image {' '.join(words)}".strip() in result.output
    assert re.search(r"Examples?:", result.output)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str):
    command = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue] a group
    texts = {parameter.name: parameter.help for parameter in command.params}
    assert texts
    assert all(text and text[0].isupper() and text.endswith(".") for text in texts.values()), texts


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_name_options_that_exist(name: str):
    command = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue] a group
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in command.epilog.split() if re.match(r"-[-a-z]", word)}
    assert used <= known


def test_no_command_shows_the_help(shell: Shell):
    output = shell.run(status=2)
    assert "Calibrate, plan, sample and judge" in output
    assert not re.search(r"^smoothcache-image:", output, re.MULTILINE)


def test_help_does_not_load_torch():
    code = (
        "import sys\n"
        "from smoothcache_image._cli import app\n"
        "try: app(['sample', '--help'])\n"
        "finally: assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------- calibrate


def test_calibration_is_continued(shell: Shell):
    whole = Calibration.load(shell.calibrate("whole.safetensors", samples=3))
    parts = shell.calibrate("parts.safetensors", samples=1)
    said = shell.run(
        "calibrate", "--model", shell.model, "--samples", 3, "--steps", STEPS, "--output", parts
    )
    assert f"Continuing {parts}: 1 samples are there, 2 to go." in said
    assert Calibration.load(parts) == whole
    assert whole.seeds == (0, 1, 2)


def test_a_complete_calibration_is_not_repeated(shell: Shell, calibrated: Path):
    before = calibrated.read_bytes()
    said = shell.run(
        "calibrate", "--model", "no/model", "--samples", 2, "--steps", STEPS, "--output", calibrated
    )
    assert "2 samples are there, 0 to go." in said
    assert calibrated.read_bytes() == before


def test_batches_are_counted_as_samples(shell: Shell):
    path = shell.calibrate("c.safetensors", "--batch", 2, "--seed", 5, "--max-lag", 2, samples=4)
    calibration = Calibration.load(path)
    assert (calibration.samples, calibration.seeds) == (4, (5, 6))
    assert (calibration.evaluations, calibration.max_lag) == (STEPS, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch", 2, "--samples", 4), "its runs are batches of 1, not of 2"),
        (("--batch", 2, "--samples", 3), "a batch of 2 does not divide 3 samples"),
        (("--samples", 3, "--steps", 5), "is for 6 evaluations, but DDIMScheduler makes 5"),
        (("--samples", 3, "--max-lag", 1), "max_lag is 3, not 1"),
        (("--samples", 3, "--solver", "dpmsolver++"), "solver is 'DDIMScheduler"),
    ],
)
def test_a_calibration_is_not_continued_by_another(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    before = calibrated.read_bytes()
    given = ("--model", shell.model, "--steps", STEPS, "--output", calibrated, *words)
    assert message in shell.refused("calibrate", *given)
    assert calibrated.read_bytes() == before


# ---------------------------------------------------------------------------- plan


def test_plan_writes_one_schedule_for_each(shell: Shell, calibrated: Path):
    folder = shell.plan(
        calibrated, "--alpha", 0.1, "--alpha", 0.25, "--compute", 0.7, "--interval", 2
    )
    settings = {file.stem: Schedule.load(file).source.settings for file in folder.iterdir()}
    assert settings["smooth-alpha0.1"]["alpha"] == 0.1
    assert settings["smooth-alpha0.25"]["alpha"] == 0.25
    assert settings["interval-2"] == {"every": 2}
    assert Schedule.load(folder / "smooth-compute0.7.json").compute_fraction() <= 0.7
    assert len(settings) == 4


def test_plan_passes_its_settings_on(shell: Shell, calibrated: Path):
    words = ("--per", "site", "--strict", "--max-lag", 1)
    folder = shell.plan(calibrated, "--alpha", 0.2, *words)
    schedule = Schedule.load(folder / "smooth-site-strict-alpha0.2.json")
    assert schedule.source.settings == {
        "alpha": 0.2,
        "per": "site",
        "strict": True,
        "max_lag": 1,
    }


def test_plan_shows_what_to_expect(shell: Shell, calibrated: Path):
    output = shell.folder / "two.json"
    said = shell.run("plan", calibrated, "--interval", 2, "--output", output)
    schedule = Schedule.load(output)
    assert f"{schedule.compute_fraction():.3f}" in said
    assert f"{1 / schedule.compute_fraction():.2f}x" in said
    assert "two.json" in said
    assert f"Written to {shell.folder}." in said


def test_plan_writes_v1_and_maps(shell: Shell, calibrated: Path):
    output = shell.folder / "two.json"
    shell.run("plan", calibrated, "--interval", 2, "--v1", "--map", "--output", output)
    older = json.loads((shell.folder / "two.v1.json").read_text())
    assert older == {"attn1": [1, 0, 1, 0, 1, 1], "ff": [1, 0, 1, 0, 1, 1]}
    assert (shell.folder / "two.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to plan: give --alpha, --compute or --interval"),
        (("--compute", 0.01), "compute 0.01 is out of reach"),
        (("--compute", 1.5), "compute is a fraction in (0, 1], got 1.5"),
        (("--alpha", -1), "at least 0, got -1"),
        (("--alpha", "x"), "--alpha"),
        (("--interval", 0), "every"),
        (("--alpha", 0.1, "--max-lag", 9), "max_lag must be from 1 to 3"),
        (("--compute", 0.7, "--per", "site", "--v1"), "not module paths"),
    ],
)
def test_an_impossible_plan_writes_nothing(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    output = shell.folder / "schedules"
    assert message in shell.refused("plan", calibrated, "--output", output, *words)
    assert not output.exists()


def test_several_schedules_are_not_one_file(shell: Shell, calibrated: Path):
    words = ("--alpha", 0.1, "--alpha", 0.2, "--output", shell.folder / "one.json")
    assert "is one file for 2 schedules" in shell.refused("plan", calibrated, *words)


def test_a_file_that_is_no_calibration_is_refused(shell: Shell, planned: Path):
    schedule = planned / "interval-2.json"
    assert "is not a calibration file" in shell.refused("plan", schedule, "--alpha", 0.1)
    assert "cannot read" in shell.refused("plan", "nothing.safetensors", "--alpha", 0.1)


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


def test_another_solver_is_remarked_on(shell: Shell, planned: Path):
    words = ("--schedule", planned / "interval-2.json", "--solver", "dpmsolver++")
    said, _ = shell.sample("s", *words)
    assert "smoothcache-image: note: the schedule was planned for something else: solver" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 5), "is for 6 evaluations, but DDIMScheduler makes 5 in 5 steps"),
        (("--labels", "7"), "classes '7' are not among 0-2"),
        (("--prompt", "fox"), "takes class labels, not prompts"),
        (("--device", "quux"), "device 'quux' cannot be used"),
        (("--dtype", "int8"), "'int8' is not one of 'auto'"),
        (("--samples", 0), "--samples"),
        (("--wrong",), "No such option: --wrong"),
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
    assert "model_class is 'Lumina2Transformer2DModel', not 'DiTTransformer2DModel'" in message


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
    assert "seeds [1] calibrated 'smooth-compute0.7', so they cannot judge it" in message


def test_schedules_need_names_of_their_own(shell: Shell, planned: Path):
    file = planned / "interval-2.json"
    message = shell.refused("evaluate", file, file, "--model", shell.model)
    assert "need different file names" in message
