"""benchmarks/README.md: one line per record, with its question, its command and its answer.

The answer is computed from the rows of the record, by what was measured. Two records ask the same
question if what was measured, and all options of their commands that decide on numbers, are alike.
"""

import json
import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench.ranking import Cell, standings
from tools.bench.records import FOLDER, REPOSITORY, grid

INDEX = FOLDER / "README.md"
HEAD = """# Records

Written by `python -m tools.bench results`. One line per record; a record is a JSON file, the same
as a table, and sometimes a plot. It is never edited. Of several that answer one question the newest
is kept, and those that the docs refer to; older ones are in the history. *Quoted in* names the
pages that take numbers from a record.
"""
_UNDECIDING = ("--threads", "--output", "--work", "--resume", "--no-resume")
"""Options that decide nothing of what is asked; those with a value are followed by it."""
_BUDGETS = (0.5, 0.25)
_QUESTION = "How was the shipped model trained, and how good is it?"  # the first two do not say it

Answer = Callable[[list[dict[str, Any]]], str]


def index() -> str:
    """Return the text of benchmarks/README.md."""
    found = [(path.stem, json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))]
    order = {what: place for place, what in enumerate(ANSWERS)}
    found.sort(key=lambda each: (order[what_of(each[0])], each[1]["date"]))
    lines = [
        [
            f"[{name}]({_page(name)})",
            record.get("question") or _QUESTION,
            f"`{record['command']}`".replace("|", "\\|"),
            ANSWERS[what_of(name)](record["rows"]),
            ", ".join(f"[{Path(page).stem}](../{page})" for page in quoted_in(name)),
        ]
        for name, record in found
    ]
    return f"{HEAD}\n{grid(['record', 'question', 'command', 'answer', 'quoted in'], lines)}\n"


def question_of(name: str, record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a record asks, equal for those that ask the same."""
    words = shlex.split(record["command"])
    options, skipped = [], False
    for word in words[next((i for i, w in enumerate(words) if w.startswith("--")), len(words)) :]:
        if word.startswith("--"):
            skipped = word in _UNDECIDING
        if not skipped:
            options.append(word)
    rows = record["rows"]
    models = sorted({str(row[key]) for row in rows for key in ("model", "stage") if key in row})
    return what_of(name), record.get("modality"), tuple(models), tuple(options)


def quoted_in(name: str) -> list[str]:
    """Return the pages that take numbers from a record, relative to the repository."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    found = re.compile(rf"benchmarks/{re.escape(name)}\.")
    return [str(page.relative_to(REPOSITORY)) for page in pages if found.search(page.read_text())]


def what_of(name: str) -> str:
    """Return what a record of this name measured."""
    return name.split("-")[0]


def _page(name: str) -> str:
    """Return the file to open: the table where there is one."""
    return f"{name}.md" if (FOLDER / f"{name}.md").exists() else f"{name}.json"


# ---------------------------------------------------------------------------- answers


def _quality(rows: list[dict[str, Any]]) -> str:
    parts = []
    for budget in _BUDGETS:
        here = [row for row in rows if row["budget"] == budget]
        ours = _least([row for row in here if row["ours"]])
        others = _least([row for row in here if not row["ours"]])
        if ours or others:
            parts.append(f"error at {budget:g}: " + ", ".join(filter(None, (ours, others))))
    return "; ".join(parts)


def _least(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    best = min(rows, key=lambda row: row["rel_l2"])
    return f"{best['policy']} {best['rel_l2']:.2g}"


def _speed(rows: list[dict[str, Any]]) -> str:
    ours = [row for row in rows if row["ours"] and row["compute"] < 1.0]
    best = max(ours, key=lambda row: row["speedup"])
    setting = f" ({best['setting']})" if "setting" in best else ""
    return f"{best['policy']}{setting}: {_times(best)}"


def _times(row: dict[str, Any]) -> str:
    return f"{row['speedup']:.2f} times as fast, {row['of_limit']:.2f} of the MAC limit"


def _compile(rows: list[dict[str, Any]]) -> str:
    breaks = sum(row["graph_breaks"] for row in rows)
    each = [f"{row['compiled']} {row['speedup']:.2f}x" for row in rows if row["ours"]]
    return f"{', '.join(each)} over the plain model compiled alike; {breaks} graph breaks"


def _planning(rows: list[dict[str, Any]]) -> str:
    single = max(row["seconds"] for row in rows if row["plans"] == 1)
    front = [f"; {row['plans']} plans {row['seconds']:.0f} s" for row in rows if row["plans"] > 1]
    return f"at most {single:.1f} s for one plan{''.join(front)}"


def _sensitivity(rows: list[dict[str, Any]]) -> str:
    full, cheap = rows[:2]
    ranks = f"rank correlation {cheap['rank_sites']:.3f}"
    return (
        f"{cheap['estimate']}: {ranks} with the full one, {cheap['calls']} of {full['calls']} calls"
    )


def _transfer(rows: list[dict[str, Any]]) -> str:
    return _by_plan(rows, "at other steps and guidance")


def _length(rows: list[dict[str, Any]]) -> str:
    return _by_plan(rows, "at four lengths")


def _by_plan(rows: list[dict[str, Any]], where: str) -> str:
    names = dict.fromkeys(row["planned_from"] for row in rows)
    means = {
        name: statistics.fmean(row["rel_l2"] for row in rows if row["planned_from"] == name)
        for name in names
    }
    shown = ", ".join(f"{name} {mean:.2g}" for name, mean in means.items())
    return f"mean error of plans {where}: {shown}"


def _sde(rows: list[dict[str, Any]]) -> str:
    parts = []
    for budget in _BUDGETS:
        here = [row for row in rows if row["budget"] == budget]
        best = min(here, key=lambda row: row["rel_l2"])
        parts.append(f"at {budget:g}: {best['target']} by {best['fill']} {best['rel_l2']:.2g}")
    return f"least error {'; '.join(parts)}"


def _channels(rows: list[dict[str, Any]]) -> str:
    gains = [row["gain"] for row in rows]
    return f"{min(gains):.1%} to {max(gains):.1%} less is left of an output"


def _demo(rows: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{row['policy']}: {row['speedup']:.2f}x, error {row['rel_l2']:.2g}"
        for row in rows
        if row["ours"]
    )


def _train(rows: list[dict[str, Any]]) -> str:
    checks = [row for row in rows if row["stage"].startswith("check")]
    return "; ".join(f"{_recognised(row)} of {row['samples']} recognised" for row in checks)


def _recognised(row: dict[str, Any]) -> str:
    """Return how much of what a model drew is recognised: of clips, what and where it goes."""
    if "directions_named" not in row:
        return f"{row['recognised']:.1%}"
    return f"{row['digits_named']:.1%} of digits and {row['directions_named']:.1%} of directions"


def _routers(rows: list[dict[str, Any]]) -> str:
    """Return the error of every router beside those of FORA and a plan at its compute."""
    trained = ("harmonica", "learning-to-cache")
    found = []
    for row in rows:
        if row["policy"] in trained:
            cut = "cut to" if "cut" in row["setting"] else "at"
            found.append(f"{row['policy']} {cut} {row['compute']:.2f}: {row['rel_l2']:.2g}")
        elif row["policy"] == "interval":
            found[-1] += f", FORA at {row['compute']:.2f} {row['rel_l2']:.2g}"
        elif row["policy"] == "auto":
            found[-1] += f", a plan {row['rel_l2']:.2g}"
    return "; ".join(found)


def _exact(rows: list[dict[str, Any]]) -> str:
    """Return the plain run's distance of every case, and the nearest of ours and of others."""
    parts = []
    for row in rows:
        if row["policy"] == "plain" and "calibrated" not in row:
            here = [each for each in rows if _case(each) == _case(row)]
            found = [_nearest([each for each in here if each["budget"] == b]) for b in _BUDGETS]
            about = f"{row['model']}, {row['solver']} {row['evaluations']}"
            about += f", guidance {row['guidance']:g}: plain run {row['exact_rel_l2']:.2g}"
            parts.append("; ".join(filter(None, (about, *found))))
    return ". ".join(parts)


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    keys = ("model", "solver", "plain_evaluations", "guidance", "calibrated")
    return tuple(row.get(key) for key in keys)


def _nearest(rows: Sequence[dict[str, Any]]) -> str:
    """Return the distances of the nearest of ours and of others at a budget."""
    found = []
    for ours in (True, False):
        those = [row for row in rows if row["ours"] is ours]
        if those:
            best = min(those, key=lambda row: row["exact_rel_l2"])
            found.append(f"{best['policy']} {best['exact_rel_l2']:.2g}")
    return f"at {rows[0]['budget']:g} {', '.join(found)}" if found else ""


def _promises(rows: list[dict[str, Any]]) -> str:
    plans, fits = ([row for row in rows if row["how"] == how] for how in ("plan", "fit"))
    inside, fitted = (statistics.mean(row["inside"] for row in of) for of in (plans, fits))
    near = statistics.mean(0.5 <= row["ratio"] <= 2.0 for row in plans)
    return (
        f"{inside:.0%} of {len(plans)} plans and {fitted:.0%} of {len(fits)} fits inside; "
        f"{near:.0%} of plans within a factor of two"
    )


def cells_of(rows: Sequence[dict[str, Any]]) -> list[Cell]:
    """Return the errors in the rows of an evaluation across modalities."""
    return [
        Cell(
            modality=row["modality"],
            policy=row["policy"],
            budget=row["budget"],
            compute=row["compute"],
            error=row["rel_l2"],
            ours=row["ours"],
        )
        for row in rows
        if row["policy"] != "plain"
    ]


def _evaluation(rows: list[dict[str, Any]]) -> str:
    """Return which policy errs least over modalities and budgets, and by how much."""
    best, *others = standings(cells_of(rows))
    other = next((each for each in others if not each.ours), None)
    if other is None:
        return f"{best.policy} errs least"
    return (
        f"{best.policy} errs least; {other.policy}, the best of others, "
        f"{other.ratio / best.ratio:.1f} times as much"
    )


def _devices(rows: list[dict[str, Any]]) -> str:
    """Return whether a device gives what the CPU gives."""
    if not rows:
        return "nothing could be compared"
    apart = max(row["latents_apart"] for row in rows)
    differ = max(
        abs(row["error_device"] / row["error_cpu"] - 1.0) for row in rows if row["error_cpu"]
    )
    word = "yes" if all(row["agrees"] for row in rows) else "NO"
    return f"{word}: plain latents {apart:.1g} apart, errors of schedules {differ:.1%}"


ANSWERS: dict[str, Answer] = {
    "evaluation": _evaluation,
    "quality": _quality,
    "speed": _speed,
    "compile": _compile,
    "gpu": _speed,
    "devices": _devices,
    "seconds": _speed,
    "planning": _planning,
    "routers": _routers,
    "sensitivity": _sensitivity,
    "promises": _promises,
    "exact": _exact,
    "transfer": _transfer,
    "length": _length,
    "sde": _sde,
    "channels": _channels,
    "demo": _demo,
    "train": _train,
}
"""How a record of each kind is summed up, in the order of the index."""
