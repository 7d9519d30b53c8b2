"""Running the command line of a package in tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typer import Typer
from typer.testing import CliRunner

STEPS = 6


@dataclass(frozen=True, kw_only=True)
class CommandShell:
    """Runs commands with one model in one folder."""

    APP: ClassVar[Typer]

    model: Path
    folder: Path

    def run(self, *words: object, status: int = 0) -> str:
        """Run a command and return its output, after checking its status."""
        result = CliRunner().invoke(self.APP, [str(word) for word in words])
        assert result.exit_code == status, (result.output, result.exception)
        return result.output

    def refused(self, *words: object) -> str:
        """Run a command that must be refused in one line, and return that line."""
        result = CliRunner().invoke(self.APP, [str(word) for word in words])
        assert result.exit_code == 2, (result.output, result.exception)
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"{self.APP.info.name}: ")
        assert "Traceback" not in result.output
        return last

    def calibrate(
        self, name: str = "c.safetensors", *words: object, samples: int = 2, sensitivity: int = 0
    ) -> Path:
        """Calibrate into a file, without sensitivities if not told otherwise: that is quicker."""
        output = self.folder / name
        self.run(
            "calibrate", "--model", self.model, "--samples", samples, "--steps", STEPS,
            "--output", output, "--sensitivity", sensitivity, "--max-lag", 3, *words,
        )  # fmt: skip
        return output

    def plan(self, calibration: Path, *words: object) -> Path:
        output = self.folder / "schedules"
        self.run("plan", calibration, "--output", output, *words)
        return output

    def sample(self, name: str, *words: object) -> tuple[str, list[bytes]]:
        """Return what a command says and the files it writes."""
        output = self.folder / name
        said = self.run("sample", "--model", self.model, "--output", output, *words)
        return said, [file.read_bytes() for file in sorted(output.iterdir())]
