"""The commands with a denoiser of which nothing is known but how it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from kit.command_shell import said
from kit.planning import SHAPE, OneStep, ToySampler, Wave
from smoothcache_core import Report, Sampler
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.sampling import ConditionedSampler
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True, kw_only=True)
class WaveSampler(ConditionedSampler):
    denoiser: nn.Module

    def plain_sampler(self) -> Sampler:
        adapter = whole_evaluations(self.denoiser)
        return Sampler(
            model=self.denoiser,
            adapter=adapter,
            run=self.sample,
            solver="one",
            samples=self.samples,
        )

    def sample(self, seed: int) -> Tensor:
        toy = ToySampler(self.denoiser, lambda: OneStep(self.steps), samples=self.samples)
        return toy(seed)

    @property
    def evaluations(self) -> int:
        return self.steps

    def label(self, condition: Any) -> str:
        return str(condition)

    def show_progress(self, shown: bool) -> None:
        """Runs are too short to show any."""


@dataclass(frozen=True, kw_only=True)
class WaveSource(Source):
    SHIPPED: ClassVar[tuple[str, ...]] = ("wave",)
    STEPS: ClassVar[int] = 10

    model: Annotated[str, opt.model_option("Only 'wave'.")] = "wave"
    steps: Annotated[int | None, opt.steps_option(10)] = None
    guidance: Annotated[float | None, opt.guidance_option(1.0)] = None

    def sampler(self, *, steps: int) -> Any:
        return WaveSampler(
            denoiser=Wave(), conditions=("wave",), steps=steps, samples=self.run_samples
        )


def judging(source: Any, sampler: Any, seeds: Sequence[int]) -> Judging:
    del source, sampler, seeds
    return Judging(
        metrics={}, summaries={}, about="", columns=(), shown=0, pictures=lambda report, title: {}
    )


def save(
    source: Any, sampler: Any, seeds: Sequence[int], latents: Sequence[Tensor], folder: Path
) -> list[Path]:
    del source, sampler, seeds
    torch.save(list(latents), folder / "waves.pt")
    return [folder / "waves.pt"]


APP = command_line(
    Modality(
        command="smoothcache-core",
        models="waves",
        units="waves",
        source=WaveSource,
        demo=Demo(opening="waves", title="Waves", legend="", files={}, samples=8),
        judging=judging,
        save=save,
    )
)


@dataclass(frozen=True)
class Shell:
    folder: Path

    def run(self, *words: object, status: int = 0) -> str:
        result = said(APP, [str(word) for word in words])
        assert result.status == status, result.output
        return " ".join(result.output.split())


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


CALIBRATE = ("calibrate", "--samples", 8, "--batch", 4)


def test_every_command_works_without_sites(shell: Shell):
    text = shell.run(*CALIBRATE, "-o", "c.safetensors")
    assert "8 samples of 10 evaluations each, 0 sites. Its MACs cannot be counted, so an" in text
    text = shell.run("plan", "c.safetensors", "--compute", 0.5, "--map", "-o", "half.json")
    assert "denoiser 0.500 2.00x" in text
    assert "MACs of this denoiser cannot be counted: evaluations are instead." in text
    assert Path("half.png").exists()
    assert "denoiser keeps the predicted error" in shell.run(
        "plan", "c.safetensors", "--front", "--error", 0.2, "-o", "front"
    )
    shell.run("fit", "half.json", "--samples", 8, "--batch", 4, "-o", "fitted.json")
    shell.run("transfer", "c.safetensors", "--steps", 8, "-o", "at8.safetensors")
    shell.run("plan", "at8.safetensors", "--compute", 0.5, "-o", "at8.json")
    text = shell.run("sample", "--schedule", "fitted.json", "--samples", 2, "--output", "samples")
    assert "5 evaluations computed, 5 filled; 0.500 of the evaluations." in text
    shell.run(
        "evaluate", "fitted.json", "--calibration", "c.safetensors", "--samples", 4, "--seed", 50,
        "-o", "report",
    )  # fmt: skip
    report = Report.load("report/report.json")
    assert report.compute_unit == "evaluations"
    assert report.sample_shape == SHAPE
    assert not Path("report/error-curves.png").exists()


def test_rules_for_sites_are_refused_in_a_line(shell: Shell):
    shell.run(*CALIBRATE, "-o", "c.safetensors")
    for words in (
        ("--compute", 0.5, "--target", "site"),
        ("--compute", 0.5, "--rule", "smooth"),
        ("--alpha", 0.2),
        ("--interval", 2),
    ):
        text = shell.run("plan", "c.safetensors", *words, "-o", "out.json", status=2)
        assert "adapter 'whole-evaluations' names no sites, so no parts of this model" in text


def test_without_sensitivities_there_is_nothing_to_plan(shell: Shell):
    text = shell.run(*CALIBRATE, "--sensitivity", 0, "-o", "c.safetensors")
    assert "No sensitivities were measured, so nothing can be planned." in text
    text = shell.run("plan", "c.safetensors", "--compute", 0.5, "-o", "out.json", status=2)
    assert text.endswith("holds no sensitivities; calibrate with --sensitivity 2")


def test_the_demo_compares_with_the_plain_run(shell: Shell):
    text = shell.run("demo", "--output", "demo", "--compute", 0.5, "--threads", 1)
    assert "out of reach" in text
    assert Path("demo/report.md").exists()
