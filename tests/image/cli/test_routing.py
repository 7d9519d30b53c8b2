"""The command `train-router`."""

import sys
from types import ModuleType
from typing import ClassVar, Self

import pytest
from kit.image_shell import STEPS, Shell
from smoothcache_core import Schedule
from smoothcache_image import loading

WORDS = ("--steps", STEPS, "--samples", 2, "--batch", 2, "--proxy", "none")


def train(shell: Shell, *words: object) -> str:
    return shell.run(
        "train-router", "--model", shell.model, *WORDS, "-o", shell.folder / "r.json", *words
    )


def test_a_router_is_trained_and_sampled_by(shell: Shell):
    said = train(shell, "--updates", 6, "--sparsity", 0.5, "--learning-rate", 1.0)
    assert "Schedule by router(threshold=0.1, decides=all" in said
    schedule = Schedule.load(shell.folder / "r.json")
    assert schedule.evaluations == STEPS
    assert schedule.fingerprint.model_class == "DiTTransformer2DModel"
    told, pictures = shell.sample("drawn", "--schedule", shell.folder / "r.json", "--samples", 1)
    assert len(pictures) == 1
    assert " reused" in told


def test_a_schedule_is_cut_at_the_compute_that_is_asked_for(shell: Shell):
    train(shell, "--updates", 2)
    trained = (shell.folder / "r.pt").read_bytes()
    said = train(shell, "--updates", 2, "--compute", 0.7)
    assert "compute: 0." in said
    assert Schedule.load(shell.folder / "r.json").compute_fraction() <= 0.7
    assert (shell.folder / "r.pt").read_bytes() == trained
    words = (*WORDS, "-o", shell.folder / "r.json", "--compute", 0.7, "--threshold", 0.1)
    assert "not both" in shell.refused("train-router", "--model", shell.model, *words)


def test_a_training_goes_on(shell: Shell):
    train(shell, "--updates", 2)
    before = (shell.folder / "r.pt").read_bytes()
    train(shell, "--updates", 4)
    assert (shell.folder / "r.pt").read_bytes() != before


def test_other_settings_than_those_of_the_training_are_refused(shell: Shell):
    train(shell, "--updates", 2)
    words = (*WORDS, "-o", shell.folder / "r.json", "--updates", 4, "--sparsity", 0.7)
    message = shell.refused("train-router", "--model", shell.model, *words)
    assert "sparsity is 0.7 instead of 0.001" in message


def test_files_of_something_else_are_kept(shell: Shell):
    (shell.folder / "r.json").write_text("mine")
    message = shell.refused(
        "train-router", "--model", shell.model, *WORDS, "-o", shell.folder / "r.json"
    )
    assert "r.json" in message
    assert (shell.folder / "r.json").read_text() == "mine"


class Writer:
    """Stands in for TensorBoard's."""

    written: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_scalar(self, name: str, value: float, update: int) -> None:
        assert value == value
        self.written.append((name, update))


def test_curves_are_written_for_tensorboard(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("torch.utils.tensorboard.writer")
    vars(module)["SummaryWriter"] = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    train(shell, "--updates", 2, "--tensorboard", shell.folder / "curves")
    assert Writer.written == [(n, u) for u in (1, 2) for n in ("loss", "error", "computed")]


def test_a_missing_tensorboard_is_told_before_the_model_is_loaded(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(loading, "load_pipeline", loaded)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    words = (*WORDS, "-o", shell.folder / "r.json", "--tensorboard", shell.folder / "curves")
    message = shell.refused("train-router", "--model", shell.model, *words)
    assert "pip install smoothcache-core[train]" in message
    assert not (shell.folder / "r.pt").exists()


def test_a_shipped_model_trains_on_real_digits(shell: Shell):
    words = ("--samples", 10, "--steps", 4, "--updates", 3, "-o", shell.folder / "l2c.json")
    said = shell.run("train-router", "--preset", "learning-to-cache", *words)
    assert "decides=alternate" in said
    row = next(iter(Schedule.load(shell.folder / "l2c.json").rows.values()))
    assert (row[0], row[2]) == (1, 1)


def test_a_model_without_known_data_is_told_what_to_do(shell: Shell):
    words = ("--preset", "learning-to-cache", "-o", shell.folder / "r.json", *WORDS[:6])
    message = shell.refused("train-router", "--model", shell.model, *words)
    assert "no data is known" in message
    assert "--on samples" in message
    train(shell, "--preset", "learning-to-cache", "--on", "samples", "--updates", 2)
