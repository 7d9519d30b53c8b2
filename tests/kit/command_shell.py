"""Running the command line of a package in tests."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from smoothcache_core.cli.app import CommandLine

STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command ended with.

    Attributes:
        status: Its exit status.
        output: All that it wrote, in the order in which it wrote it.
        errors: What it wrote to stderr.
    """

    status: int
    output: str
    errors: str


class _Copied(io.StringIO):
    """Text that is written to another text too."""

    def __init__(self, other: io.StringIO) -> None:
        super().__init__()
        self.other = other

    def write(self, text: str) -> int:
        self.other.write(text)
        return super().write(text)


def said(program: CommandLine, words: Sequence[object]) -> Said:
    """Run a command and return what it wrote."""
    output = io.StringIO()
    errors = _Copied(output)
    with redirect_stdout(output), redirect_stderr(errors):
        status = program.run([str(word) for word in words])
    return Said(status=status, output=output.getvalue(), errors=errors.getvalue())


@dataclass(frozen=True, kw_only=True)
class CommandShell:
    """Runs commands with one model in one folder."""

    APP: ClassVar[CommandLine]

    model: Path
    folder: Path

    def run(self, *words: object, status: int = 0) -> str:
        """Run a command and return its output, after checking its status."""
        result = said(self.APP, words)
        assert result.status == status, result.output
        return result.output

    def refused(self, *words: object) -> str:
        """Run a command that must be refused in one line, and return that line."""
        result = said(self.APP, words)
        assert result.status == 2, result.output
        last = result.errors.splitlines()[-1]
        assert last.startswith(f"{self.APP.modality.command}: ")
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
