"""Records of measurements: one JSON file per run with where it comes from, and the same as a table.

Every tool that measures something writes its result here, as
`benchmarks/<what>-<modality>-<hardware>-<yyyymmdd>.json` and a `.md` beside it. A record is never
edited; a second run of one day gets a number behind its name.
"""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from smoothcache_core.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "benchmarks"

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run of one script.

    Attributes:
        what: What was measured, one word: "speed", "compile", "quality".
        modality: "image", "video" or "audio"; "synthetic" without a model.
        question: The question that the rows answer.
        command: What was typed.
        date: When, in UTC, ISO 8601.
        hardware: Name of the device, with its cores or memory.
        versions: Versions of Python and of the packages that matter.
        commit: Commit of this repository.
        seeds: Seeds by their use; calibration and evaluation are disjoint.
        settings: What all rows have in common.
        rows: One policy at one setting each.
        notes: How to read the rows.
        refused: Policies that could not be run: name, setting and the reason they gave.
        checks: Equalities that were verified in the same run, by what they claim.
    """

    what: str
    modality: str
    question: str
    command: str
    date: str
    hardware: str
    versions: Mapping[str, str]
    commit: str
    seeds: Mapping[str, Sequence[int]]
    settings: dict[str, Any]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    refused: Sequence[Row] = ()
    checks: Mapping[str, bool] = field(default_factory=dict)

    def save(self, folder: Path = FOLDER, *, instead: Path | None = None) -> Path:
        """Write the JSON file and the table; return the path of the former.

        Args:
            folder: Where to.
            instead: The file of the same measurement when less of it was done, to be replaced.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = instead or _unused(
            folder, f"{self.what}-{_slug(self.modality)}-{_slug(self.hardware)}-{self._day()}"
        )
        write_atomically(path, (json.dumps(asdict(self), indent=2) + "\n").encode())
        write_atomically(path.with_suffix(".md"), self.to_markdown().encode())
        return path

    def _day(self) -> str:
        return self.date[:10].replace("-", "")

    def to_markdown(self) -> str:
        """Return the record as Markdown."""
        facts = {
            "command": f"`{self.command}`",
            "date": self.date,
            "hardware": self.hardware,
            "versions": ", ".join(f"{k} {v}" for k, v in self.versions.items()),
            "commit": self.commit,
            "seeds": "; ".join(f"{k} {list(v)}" for k, v in self.seeds.items()),
            **{key: _cell(value) for key, value in (self.settings | common(self.rows)).items()},
        }
        parts = [
            f"# {self.what.capitalize()}, {self.modality}",
            self.question,
            table(self.rows),
            *([_bullets("Checked in the same run", _checked(self.checks))] if self.checks else []),
            *([f"Could not be run:\n\n{table(self.refused, whole=True)}"] if self.refused else []),
            *([_bullets("How to read this", self.notes)] if self.notes else []),
            _bullets("Where this comes from", [f"{k}: {v}" for k, v in facts.items()]),
        ]
        return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row], *, whole: bool = False) -> str:
    """Return rows as a Markdown table; if not `whole`, without the columns of `common`."""
    keys = dict.fromkeys(key for row in rows for key in row)
    shown = [key for key in keys if whole or key not in common(rows)]
    return grid(shown, [[_cell(row[key]) if key in row else "" for key in shown] for row in rows])


def grid(
    titles: Sequence[str], lines: Iterable[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """Return a Markdown table; the columns of the numbers in `right` are aligned to the right."""
    rule = ["---:" if index in right else "---" for index in range(len(titles))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rule, *lines))


def common(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the keys that have the same value in every one of several rows, and that value."""
    if len(rows) < 2:
        return {}
    first, *others = rows
    return {k: v for k, v in first.items() if all(k in row and row[k] == v for row in others)}


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _bullets(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"- {line}" for line in lines)])


def _checked(checks: Mapping[str, bool]) -> list[str]:
    return [f"{claim}: {'yes' if holds else 'NO'}" for claim, holds in checks.items()]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _unused(folder: Path, stem: str) -> Path:
    number = 1
    while (path := folder / f"{stem}{'' if number == 1 else f'-{number}'}.json").exists():
        number += 1
    return path


# ---------------------------------------------------------------------------- where it comes from


def new_record(
    *, packages: Sequence[str], device: torch.device | None = None, **described: Any
) -> Record:
    """Return a record of what was measured here and now, by the command that was typed.

    Args:
        packages: Whose versions it holds.
        device: Where it was measured, the processor if not given.
        **described: The other attributes of `Record`.
    """
    return Record(
        command=command(),
        date=now(),
        hardware=hardware(device or torch.device("cpu")),
        versions=versions(*packages),
        commit=commit(),
        **described,
    )


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """Return what was typed: the module, if it is one of this repository's, else the script."""
    script = Path(sys.argv[0]).resolve()
    typed = [script.name]
    if script.is_relative_to(REPOSITORY / "tools"):
        parts = script.relative_to(REPOSITORY).with_suffix("").parts
        typed = ["-m", ".".join(part for part in parts if part != "__main__")]
    return shlex.join(["python", *typed, *sys.argv[1:]])


def hardware(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with the cores that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of this repository, and whether code was changed since."""
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "packages", "tools")
    return f"{head} with local changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
