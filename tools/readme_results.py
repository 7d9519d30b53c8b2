"""Writes the results in README.md from the newest records in benchmarks/.

    python tools/readme_results.py

A test fails if README says something else than the records.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _records import FOLDER, REPOSITORY

README = REPOSITORY / "README.md"
BEGIN, END = "<!-- results: tools/readme_results.py -->", "<!-- end of results -->"
DIGITS_NAMES = {
    "compute": "compute",
    "speedup": "faster",
    "rel_l2": "rel. L2",
    "psnr_db": "PSNR",
    "accuracy": "accuracy",
}
FEW_POLICIES = 8
"""Records of fewer policies ask something else, say how many samples are enough."""
RANKED_AT = 0.25
OFF_BUDGET = 0.02
STYLES = {
    "compute": "{:.2f}",
    "speedup": "{:.2f}x",
    "of_limit": "{:.2f}",
    "rel_l2": "{:.3f}",
    "psnr_db": "{:.1f} dB",
    "accuracy": "{:.0%}",
}
MODALITIES = ("image", "video", "audio")
SPEED_NAMES = {"compute": "compute", "speedup": "faster", "of_limit": "of the MAC limit"}


def records(what: str) -> list[Path]:
    """Return the records of a kind, image first, the newest last."""
    paths = sorted(FOLDER.glob(f"{what}-*.json"), key=_day_and_number)
    return sorted(paths, key=lambda path: MODALITIES.index(path.stem.split("-")[1]))


def newest(what: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the newest record of every modality, with other methods in it and without."""
    found: dict[tuple[object, ...], tuple[str, dict[str, Any]]] = {}
    for path in records(what):
        record = json.loads(path.read_text())
        alone = all(row["ours"] or row["policy"] == "plain" for row in record["rows"])
        found[record["modality"], alone] = path.stem, record
    return list(found.values())


def _day_and_number(path: Path) -> tuple[int, int]:
    day, number = re.findall(r"-(\d{8})(?:-(\d+))?$", path.stem)[0]
    return int(day), int(number or 1)


def table(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> str:
    """Return rows as a Markdown table of the columns in `names`."""
    lines = ["| policy | " + " | ".join(names.values()) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for row in rows:
        cells = [shown(key, row.get(key)) for key in names]
        name = ": ".join(part for part in (row["policy"], row.get("setting", "-")) if part != "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(key: str, value: float | None) -> str:
    """Return a cell."""
    if value is None:
        return "-"
    styles = {
        "speedup": "{:.2f}x",
        "compute": "{:.2f}",
        "psnr_db": "{:.1f} dB",
        "of_limit": "{:.2f}",
    }
    return styles.get(key, "{:.3f}").format(value)


def qualities() -> list[tuple[str, dict[str, Any]]]:
    """Return the newest quality record of every model, solver and number of evaluations."""
    found: dict[tuple[object, ...], tuple[str, dict[str, Any]]] = {}
    for path in records("quality"):
        record = json.loads(path.read_text())
        plain = next(row for row in record["rows"] if row["policy"] == "plain")
        whole = len({row["policy"] for row in record["rows"]}) > FEW_POLICIES
        if whole and not plain["full_size"]:
            known = (plain[name] for name in ("modality", "model", "solver", "evaluations"))
            found[tuple(known)] = path.stem, record
    return list(found.values())


def errors(record: dict[str, Any]) -> str:
    """Return the errors of a quality record as a Markdown table, the least first."""
    cells: dict[str, dict[float, dict[str, Any]]] = {}
    for row in record["rows"]:
        if row["policy"] != "plain":
            cells.setdefault(row["policy"], {})[row["budget"]] = row
    budgets = sorted({budget for rows in cells.values() for budget in rows}, reverse=True)
    lines = ["| policy | " + " | ".join(f"{b:g}" for b in budgets) + " |"]
    lines.append("| --- |" + " ---: |" * len(budgets))
    for policy, rows in sorted(cells.items(), key=lambda item: _error_at(item[1], RANKED_AT)):
        ours = next(iter(rows.values()))["ours"]
        name = f"**{policy}**" if ours else policy
        lines.append(f"| {name} | " + " | ".join(_error(rows.get(b), b) for b in budgets) + " |")
    return "\n".join(lines)


def _error_at(rows: dict[float, dict[str, Any]], budget: float) -> float:
    return rows[budget]["rel_l2"] if budget in rows else float("inf")


def _error(row: dict[str, Any] | None, budget: float) -> str:
    """Return a cell, with the compute where it is not what was asked for."""
    if row is None:
        return "-"
    aside = f" (at {row['compute']:.2f})" if abs(row["compute"] - budget) > OFF_BUDGET else ""
    return f"{row['rel_l2']:.2g}{aside}"


def quality() -> list[str]:
    """Return the tables of quality at equal compute, as lines of Markdown."""
    parts = [
        "**Error at equal compute** on the shipped small models: relative L2 distance of the",
        "final sample from the plain run's of the same noise, by compute budget (MACs over",
        "plain), mean over samples whose seeds calibrated nothing. `planned` is",
        "`plan(calibration, compute=...)`, `planned-fitted` is that after `fit`;",
        "`smoothcache-fitted` has SmoothCache's rows and fills of two outputs found by `fit`; the",
        "others of ours plan for one target.\n",
    ]
    for name, record in qualities():
        plain = next(row for row in record["rows"] if row["policy"] == "plain")
        parts += [
            f"{plain['model']}, {plain['solver']}, {plain['evaluations']} evaluations, samples: "
            f"{record['settings']['samples']} ({len(record['seeds']['evaluation'])}).",
            f"[Record](benchmarks/{name}.md), `{record['command']}`.\n",
            errors(record) + "\n",
        ]
    return parts


def speed() -> list[str]:
    """Return the tables of speed, as lines of Markdown."""
    parts = [
        "**Speed** of full-size models (random weights: speed does not depend on them). Compute is",
        "MACs over plain; the MAC limit is the speed-up if time were MACs alone.\n",
    ]
    for name, record in newest("speed"):
        row, settings = record["rows"][0], record["settings"]
        parts += [
            f"{row['model']}, {row['solver']}, {row['evaluations']} evaluations, batch "
            f"{settings['batch']}, {settings['dtype']}, {record['hardware']}.",
            f"[Record](benchmarks/{name}.md), `{record['command']}`.\n",
            table(record["rows"], SPEED_NAMES) + "\n",
        ]
    return parts


def demo() -> list[str]:
    """Return the table of the image demo, as lines of Markdown."""
    (name, record), *_ = newest("demo")
    return [
        "**Quality** on the shipped digits model, against the plain run from the same noise.",
        f"[Record](benchmarks/{name}.md), `{record['command']}`.\n",
        table(record["rows"], DIGITS_NAMES) + "\n",
    ]


def section() -> str:
    """Return the results as Markdown."""
    parts = [
        BEGIN,
        "## Results\n",
        *quality(),
        *speed(),
        *demo(),
        "There are no GPU figures yet; `tools/bench_image.py speed --device cuda --dtype float16`",
        "makes them.",
        END,
    ]
    return "\n".join(parts)


def rewritten(text: str) -> str:
    """Return README's text with the section as the records have it."""
    before, rest = text.split(BEGIN)
    return before + section() + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
