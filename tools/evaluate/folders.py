"""The folder of a modality: what was measured there, and with which settings."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcache_core.documents import read_document
from smoothcache_core.errors import CommandError, EvaluationError
from smoothcache_core.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a modality's calibration, plans and runs are.

    Attributes:
        folder: The folder of the modality, below that of the report.
        known: Everything that decides on the numbers, by name; JSON values.
    """

    folder: Path
    known: Mapping[str, Any]

    @property
    def settings(self) -> Path:
        """The file that says what all others in the folder were made with."""
        return self.folder / "settings.json"

    @property
    def calibration(self) -> Path:
        """The calibration file."""
        return self.folder / "calibration.safetensors"

    def plan(self, name: str) -> Path:
        """Return the file that says what became of a policy at a budget."""
        return self.folder / "plans" / f"{slug(name)}.json"

    def schedule(self, name: str) -> Path:
        """Return the schedule file of a policy at a budget."""
        return self.folder / "plans" / f"{slug(name)}.schedule.json"

    def unit(self, name: str, seed: int) -> Path:
        """Return the file of the run of a policy from a seed."""
        return self.folder / "runs" / f"{slug(name)}-seed{seed}.json"

    @property
    def digest(self) -> str:
        """What tells numbers of other settings apart."""
        return digest_of(self.known)

    def differences(self) -> list[str]:
        """Return how what is in the folder was made otherwise; empty if it was not, or is new."""
        if not self.settings.exists():
            return []
        found = read_document(self.settings, "settings", EvaluationError)
        before = dict(_flat(found)) if isinstance(found, dict) else {}
        now = dict(_flat(self.known))
        return [
            f"{name}: {before.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]

    def enter(self, *, force: bool) -> None:
        """Begin, or go on.

        Raises:
            CommandError: What is there was made with other settings, and is not to be replaced.
        """
        if force:
            clear(self.folder)
        elif different := self.differences():
            raise CommandError(
                f"{str(self.folder)!r} was measured with other settings ({different[0]}); give "
                "--force to start anew, or another --output"
            )
        write_atomically(self.settings, (json.dumps(self.known, indent=2) + "\n").encode())


def clear(folder: Path) -> None:
    """Remove what evaluations keep in a modality's folder."""
    for name in ("plans", "runs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for file in (*folder.glob("calibration*.safetensors"), folder / "settings.json"):
        file.unlink(missing_ok=True)


def slug(text: str) -> str:
    """Return a name as a part of a file name."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-.")


def digest_of(value: object) -> str:
    """Return a hash of a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{before}{key}.")
        else:
            yield f"{before}{key}", each
