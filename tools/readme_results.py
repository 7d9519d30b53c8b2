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
STYLES = {
    "compute": "{:.2f}",
    "speedup": "{:.2f}x",
    "of_limit": "{:.2f}",
    "rel_l2": "{:.3f}",
    "psnr_db": "{:.1f} dB",
    "accuracy": "{:.0%}",
}
SPEED_NAMES = {"compute": "compute", "speedup": "faster", "of_limit": "of the MAC limit"}


def newest(what: str) -> tuple[str, dict[str, Any]]:
    """Return the name and content of the newest record of its kind."""
    path = max(FOLDER.glob(f"{what}-image-*.json"), key=_day_and_number)
    return path.stem, json.loads(path.read_text())


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


def section() -> str:
    """Return the results as Markdown."""
    (speed_name, speed), (demo_name, demo) = newest("speed"), newest("demo")
    parts = [
        BEGIN,
        "## Results\n",
        "**Speed** of full-size DiT-XL/2-256 (random weights: speed does not depend on them), DDIM",
        f"50, guidance in a batch of 2, {speed['hardware']}. Compute is MACs over plain; the MAC",
        "limit is the speed-up if time were MACs alone.",
        f"[Record](benchmarks/{speed_name}.md), `{speed['command']}`.\n",
        table(speed["rows"], SPEED_NAMES) + "\n",
        "**Quality** on the shipped digits model, against the plain run from the same noise.",
        f"[Record](benchmarks/{demo_name}.md), `{demo['command']}`.\n",
        table(demo["rows"], DIGITS_NAMES) + "\n",
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
