"""One evaluation over modalities, on toys."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from kit.evaluation_toys import kinds, use_toys
from smoothcache_core import Schedule
from smoothcache_core.errors import CalibrationError

from tools.evaluate import cli, policies, preparing, settings
from tools.evaluate.policies import Material, PolicyKind

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = ("--budgets", "0.6", "0.4", "--policies", "planned", "smoothcache", "fewer-steps")
ONE = ("--budgets", "0.5", "--policies", "planned", "--modalities", "image")
"""For what does not depend on what is compared."""
SPEED = {"seconds", "seconds_each", "speedup", "of_limit", "date"}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What an evaluation ended with."""

    status: int
    said: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    @property
    def text(self) -> str:
        """The report as Markdown, without the spaces that make columns of one width."""
        return re.sub(" +", " ", (self.folder / "report.md").read_text())


def evaluated(folder: Path, *words: str, few: Sequence[str] = FEW) -> Ended:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = cli.run([*few, *words, "--output", str(folder)])
    return Ended(status=status, said=said.getvalue(), folder=folder)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Return an evaluation of image and audio that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        use_toys(patch)
        return evaluated(tmp_path_factory.mktemp("whole") / "out", "--modalities", "image", "audio")


def timeless(value: Any) -> Any:
    """Return a report without what depends on the clock."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in SPEED}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def copied(whole: Ended, folder: Path) -> Path:
    """Return a copy of what an evaluation left, with the times of its files."""
    return Path(shutil.copytree(whole.folder, folder / "out"))


def times_of(out: Path) -> dict[str, int]:
    """Return when every run was written."""
    return {str(f.relative_to(out)): f.stat().st_mtime_ns for f in out.glob("*/runs/*.json")}


# ---------------------------------------------------------------------------- the report


def test_one_table_has_the_errors_of_all_modalities(whole: Ended):
    assert whole.status == 0, whole.said
    header = next(line for line in whole.text.splitlines() if line.startswith("| policy"))
    assert header == "| policy | image 0.6 | image 0.4 | audio 0.6 | audio 0.4 |"
    rows = [line for line in whole.text.splitlines() if line.startswith("| planned (ours) |")]
    cells = [float(cell) for cell in rows[0].split("|")[2:-1]]
    found = whole.report["modalities"]["image"]["report"]["rows"]
    errors = {row["policy"]: row["rel_l2"] for row in found}
    assert cells[0] == pytest.approx(errors["planned 0.6"], rel=0.1)


def test_every_policy_has_a_standing_and_the_best_is_named_first(whole: Ended):
    standings = whole.report["standings"]
    assert next(each["policy"] for each in standings) in whole.text.splitlines()[2]
    assert {each["policy"] for each in standings} == {"planned", "smoothcache", "fewer-steps"}
    assert all(each["cells"] + each["missing"] == 4 for each in standings)


def test_predicted_errors_stand_beside_measured_ones(whole: Ended):
    section = whole.text.split("## Predicted and measured errors")[1]
    assert re.search(r"\| planned \(ours\) \| 0.6 \| \S+ -> \S+ \(\S+x\)", section)


def test_every_modality_has_a_folder_of_its_own_with_pictures_and_schedules(whole: Ended):
    for name in ("image", "audio"):
        names = {file.name for file in (whole.folder / name).iterdir()}
        assert {"report.md", "report.json", "samples.png", "skip-map-planned-0.6.png"} <= names
        assert f"]({name}/report.md)" in whole.text
    assert (whole.folder / "index.html").exists()
    plan = whole.folder / "image" / "plans" / "planned-0.6.schedule.json"
    assert Schedule.load(plan).compute_fraction() <= 0.6


def test_fewer_steps_are_a_plain_run_with_their_own_evaluations(whole: Ended):
    rows = whole.report["modalities"]["image"]["report"]["rows"]
    row = next(row for row in rows if row["policy"] == "fewer-steps 0.4")
    assert (row["evaluations"], row["compute"]) == (4, 0.4)
    assert row["rel_l2"] > 0.0


def test_another_model_takes_the_place_of_a_shipped_one(whole: Ended, tmp_path: Path):
    few = ("--budgets", "0.4", "--policies", "fewer-steps", "--modalities", "image")
    ended = evaluated(tmp_path / "out", "--image-model", "7", few=few)
    assert ended.report["modalities"]["image"]["model"] == "7"
    error = ended.report["modalities"]["image"]["report"]["rows"][1]["rel_l2"]
    rows = whole.report["modalities"]["image"]["report"]["rows"]
    assert error != next(row["rel_l2"] for row in rows if row["policy"] == "fewer-steps 0.4")


# ---------------------------------------------------------------------------- going on


def test_what_was_broken_off_continues_and_measures_nothing_twice(whole: Ended, tmp_path: Path):
    out = copied(whole, tmp_path)
    gone = [out / "image/runs/planned-0.6-seed101.json", out / "audio/calibration.safetensors"]
    gone += [out / "audio/plans/smoothcache-0.4.json", *out.glob("audio/runs/*seed101*")]
    for file in gone:
        file.unlink()
    before = times_of(out)
    again = evaluated(out, "--modalities", "image", "audio")
    after = times_of(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * 2 * 7  # modalities, seeds; plain and three policies at two budgets
    assert timeless(again.report) == timeless(whole.report)


def test_half_a_file_is_measured_anew(whole: Ended, tmp_path: Path):
    out = copied(whole, tmp_path)
    (out / "image/runs/plain-seed100.safetensors").write_bytes(b"half")
    (out / "image/runs/planned-0.6-seed100.json").write_text("{")
    again = evaluated(out, "--modalities", "image")
    assert timeless(again.report["modalities"]["image"]) == timeless(
        whole.report["modalities"]["image"]
    )


def test_more_budgets_and_modalities_go_on_in_the_same_folder(tmp_path: Path):
    out = tmp_path / "out"
    evaluated(out, few=ONE)
    before = times_of(out)
    more = ("--budgets", "0.5", "0.4", "--policies", "planned", "--modalities", "image", "video")
    again = evaluated(out, few=more)
    assert again.status == 0, again.said
    after = times_of(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * 2 * 3  # modalities, seeds; plain and a policy at two budgets


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--image-model", "7"), "model: stack, now 7"),
        (("--image-steps", "9"), "steps: 10, now 9"),
        (("--calibration-seeds", "3", "4"), "calibration.seeds"),
        (("--threads", "2"), "threads: 1, now 2"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    words: Sequence[str], what: str, whole: Ended
):
    before = times_of(whole.folder)
    ended = evaluated(whole.folder, "--modalities", "image", *words)
    assert ended.status == 2
    last = ended.said.strip().splitlines()[-1]
    assert "was measured with other settings" in last
    assert what in last
    assert "--force" in last
    assert times_of(whole.folder) == before


def test_force_starts_anew(tmp_path: Path):
    out = tmp_path / "out"
    evaluated(out, few=ONE)
    ended = evaluated(out, "--image-steps", "9", "--force", few=ONE)
    assert ended.status == 0, ended.said
    rows = ended.report["modalities"]["image"]["report"]["rows"]
    assert rows[0]["evaluations"] == 9


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    ended = evaluated(tmp_path)
    assert ended.status == 2
    assert "already exists" in ended.said


@pytest.mark.slow
def test_killed_then_two_processes_say_what_one_says(
    whole: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, words = tmp_path / "out", [*FEW, "--modalities", "image", "audio", "--output"]
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (root, root / "tests"))), os.pathsep)
    module = ["-m", "kit.evaluation_toys", *words, str(out)]
    first = subprocess.Popen([sys.executable, *module], cwd=root, stderr=subprocess.DEVNULL)
    _until(lambda: len(times_of(out)) >= 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = times_of(out)
    assert not (out / "report.json").exists()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    both = subprocess.run(
        [sys.executable, *launch, *module],
        cwd=root, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("Done in") == 1
    after = times_of(out)
    assert {name: after[name] for name in before} == before
    assert timeless(json.loads((out / "report.json").read_text())) == timeless(whole.report)


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not done():
        assert time.monotonic() < end, "nothing was measured"
        time.sleep(0.02)


# ---------------------------------------------------------------------------- what is missing


def test_a_missing_package_is_said_in_its_place_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    absent = kinds(video="smoothcache_absent.cli:CLIPS")
    monkeypatch.setattr(settings, "KINDS", MappingProxyType(absent))
    few = (*ONE, "video")
    ended = evaluated(tmp_path / "out", few=few)
    assert ended.status == 1
    assert "is not installed; `pip install" in ended.text
    assert "| planned (ours) | 0." in ended.text
    assert "| missing |" in ended.text
    assert ended.report["modalities"]["video"]["report"] is None


def test_a_missing_extra_is_said_in_its_place_and_nothing_is_missing(whole: Ended):
    image, audio = whole.text.split("## Image")[1].split("## Audio")
    assert "Sounds are silent." in audio
    assert "Sounds are silent." not in image
    assert "Sounds are silent." in whole.report["modalities"]["audio"]["remarks"]


def test_a_model_that_cannot_be_loaded_is_said_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from kit.evaluation_toys import StackSource
    from smoothcache_core.errors import PipelineError

    def refuse(self: StackSource, *, steps: int) -> Any:
        raise PipelineError(f"there is no model {self.model!r}")

    monkeypatch.setattr(StackSource, "sampler", refuse)
    ended = evaluated(tmp_path / "out", "--modalities", "audio", "--audio-model", "none")
    assert ended.status == 1
    assert "PipelineError: there is no model 'none'" in ended.text
    assert "Nothing could be measured" in ended.text
    again = evaluated(tmp_path / "out", "--modalities", "audio", "--audio-model", "none")
    assert again.status == 1  # the folder is known for an evaluation's


def test_without_parts_whole_evaluations_are_compared_and_the_rest_says_why(tmp_path: Path):
    few = ("--budgets", "0.6", "--policies", "planned", "smoothcache", "--modalities", "image")
    ended = evaluated(tmp_path / "out", "--adapter", "whole", few=few)
    assert ended.status == 0, ended.said
    assert "No parts of this model are known" in ended.text
    assert re.search(r"\| image \| smoothcache \| 0.6 \| .*names no sites", ended.text)
    assert "| planned (ours) | 0." in ended.text


def test_a_budget_below_the_possible_says_what_is_possible(tmp_path: Path):
    few = ("--budgets", "0.05", "--policies", "planned", "fewer-steps")
    ended = evaluated(tmp_path / "out", "--modalities", "image", few=few)
    assert ended.status == 0, ended.said
    entries = {each["policy"]: each for each in ended.report["modalities"]["image"]["entries"]}
    assert entries["planned"]["reason"] == "nearest possible"
    assert entries["planned"]["compute"] == pytest.approx(0.1)
    assert entries["fewer-steps"]["reason"] == "not possible: at least 0.20"
    assert "(at 0.10)" in ended.text
    assert "at least 0.20" in ended.text
    assert ended.report["standings"] == []


def test_samples_are_of_the_least_budget_that_is_possible_and_of_what_is_recommended(
    tmp_path: Path,
):
    few = ("--budgets", "0.8", "0.5", "0.05", "--policies", "planned", "fewer-steps")
    ended = evaluated(tmp_path / "out", "--modalities", "image", few=few)
    page = (ended.folder / "index.html").read_text()
    shown = re.findall(r'<div class="panel">\s*<h4>(\S+ \S+)', page)
    assert {"planned 0.05"} <= set(shown)  # the nearest possible, in its place
    assert "fewer-steps 0.8" not in shown
    recommended = re.search(r"Use <strong>(.*?)</strong>", page)
    assert recommended is not None
    assert recommended[1] in shown


def test_where_nothing_is_possible_the_plain_run_is_shown_alone(tmp_path: Path):
    few = ("--budgets", "0.05", "--policies", "fewer-steps")
    ended = evaluated(tmp_path / "out", "--modalities", "image", few=few)
    assert ended.status == 0, ended.said
    assert "at least 0.20" in (ended.folder / "index.html").read_text()


def test_a_policy_that_fails_is_a_row_with_its_reason_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(material: Material, budget: float) -> Schedule:
        raise CalibrationError("the moon is full")

    def of_another_run(material: Material, budget: float) -> Schedule:
        return Schedule(evaluations=4, rows={"layer": (1, 0, 0, 1)}, cost=material.calibration.cost)

    known = {
        **policies.POLICIES,
        "smoothcache": PolicyKind(title="refuses", make=refuse),
        "fora": PolicyKind(title="does not fit", make=of_another_run),
    }
    monkeypatch.setattr(preparing, "POLICIES", known)
    few = ("--budgets", "0.5", "--policies", "planned", "smoothcache", "fora")
    ended = evaluated(tmp_path / "out", "--modalities", "image", few=few)
    assert ended.status == 1
    assert "| image | smoothcache | 0.5 | CalibrationError: the moon is full |" in ended.text
    assert re.search(r"\| image \| fora \| 0.5 \| ScheduleError: .* for 4", ended.text)
    assert "| planned (ours) | 0." in ended.text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--seeds", "1", "2"), "seeds [1] would calibrate and evaluate"),
        (("--seeds", "5", "5"), "--seeds must be distinct"),
        (("--budgets", "1.5"), "--budgets are fractions"),
        (("--policies", "luck"), "no policy is called"),
        (("--modalities", "smell"), "smell"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(
    words: Sequence[str], why: str, tmp_path: Path
):
    ended = evaluated(tmp_path / "out", *words, few=())
    assert ended.status == 2
    assert why in ended.said.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
