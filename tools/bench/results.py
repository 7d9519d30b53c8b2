"""Writes the results in README.md, docs/results.md, docs/exact.md and benchmarks/README.md.

    python -m tools.bench results

They come from the records in benchmarks/, and a test fails if they say something else.
"""

import json
from collections.abc import Sequence
from typing import Any

from tools.bench import exact_results
from tools.bench.index import INDEX, cells_of, index
from tools.bench.ranking import Standing, standings
from tools.bench.records import FOLDER, REPOSITORY, grid

README = REPOSITORY / "README.md"
RESULTS = REPOSITORY / "docs" / "results.md"
EXACT = REPOSITORY / "docs" / "exact.md"
BEGIN, END = "<!-- results: python -m tools.bench results -->", "<!-- end of results -->"
DIGITS_NAMES = {
    "compute": "compute",
    "speedup": "faster",
    "rel_l2": "rel. L2",
    "psnr_db": "PSNR",
    "accuracy": "accuracy",
}
FEW_BUDGETS = 3
"""Records of fewer budgets ask something else, say how many samples are enough."""
RANKED_AT = 0.25
OFF_BUDGET = 0.02
SUMMED_UP_AT = (0.5, 0.25)
SUMMED_UP = (("planned",), ("planned-fitted",), ("smoothcache (K=3)", "smoothcache (K=10)"))
MODALITIES = ("image", "video", "audio")
SPEED_NAMES = {"compute": "compute", "speedup": "faster", "of_limit": "of the MAC limit"}
SECONDS_NAMES = SPEED_NAMES | {"speedup_low": "at least", "speedup_high": "at most"}


def records(what: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and contents of the records of a kind, image first, the newest last."""
    found = [(path.stem, json.loads(path.read_text())) for path in FOLDER.glob(f"{what}-*.json")]
    return sorted(found, key=lambda each: (MODALITIES.index(each[1]["modality"]), each[1]["date"]))


def newest(what: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the newest record of every modality, with other methods in it and without."""
    found: dict[tuple[object, ...], tuple[str, dict[str, Any]]] = {}
    for name, record in records(what):
        alone = all(row["ours"] or row["policy"] == "plain" for row in record["rows"])
        found[record["modality"], alone] = name, record
    return list(found.values())


def table(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> str:
    """Return rows as a Markdown table of the columns in `names`."""
    lines = []
    for row in rows:
        name = ": ".join(part for part in (row["policy"], row.get("setting", "-")) if part != "-")
        lines.append([name, *(shown(key, row.get(key)) for key in names)])
    return grid(["policy", *names.values()], lines, right=range(1, len(names) + 1))


def shown(key: str, value: float | None) -> str:
    """Return a cell."""
    if value is None:
        return "-"
    styles = {
        **dict.fromkeys(("speedup", "speedup_low", "speedup_high"), "{:.2f}x"),
        "compute": "{:.2f}",
        "psnr_db": "{:.1f} dB",
        "of_limit": "{:.2f}",
    }
    return styles.get(key, "{:.3f}").format(value)


def qualities() -> list[tuple[str, dict[str, Any]]]:
    """Return the newest quality record of every model, solver and number of evaluations."""
    found: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}
    for name, record in records("quality"):
        plain = next(row for row in record["rows"] if row["policy"] == "plain")
        whole = len({row["budget"] for row in record["rows"]}) > FEW_BUDGETS
        if whole and not plain["full_size"]:
            known = (plain[key] for key in ("modality", "model", "solver", "evaluations"))
            found[tuple(known)] = name, record
    return [found[known] for known in sorted(found, key=_order)]


def _order(known: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what sorts models and solvers: image first, solvers that add noise last."""
    modality, model, solver, evaluations = known
    return MODALITIES.index(modality), solver.startswith("SDE"), model, solver, evaluations


def errors(record: dict[str, Any]) -> str:
    """Return the errors of a quality record as a Markdown table, the least first."""
    cells: dict[str, dict[float, dict[str, Any]]] = {}
    for row in record["rows"]:
        if row["policy"] != "plain":
            cells.setdefault(row["policy"], {})[row["budget"]] = row
    budgets = sorted({budget for rows in cells.values() for budget in rows}, reverse=True)
    lines = []
    for policy, rows in sorted(cells.items(), key=lambda item: _error_at(item[1], RANKED_AT)):
        ours = next(iter(rows.values()))["ours"]
        name = f"**{policy}**" if ours else policy
        lines.append([name, *(_error(rows.get(b), b) for b in budgets)])
    titles = ["policy", *(f"{b:g}" for b in budgets)]
    return grid(titles, lines, right=range(1, len(titles)))


def _error_at(rows: dict[float, dict[str, Any]], budget: float) -> float:
    return rows[budget]["rel_l2"] if budget in rows else float("inf")


def _error(row: dict[str, Any] | None, budget: float) -> str:
    """Return a cell, with the compute where it is not what was asked for."""
    if row is None:
        return "-"
    aside = f" (at {row['compute']:.2f})" if abs(row["compute"] - budget) > OFF_BUDGET else ""
    return f"{row['rel_l2']:.2g}{aside}"


def _title(record: dict[str, Any]) -> str:
    plain = next(row for row in record["rows"] if row["policy"] == "plain")
    return f"{plain['model']}, {plain['solver']}, {plain['evaluations']} evaluations"


# ---------------------------------------------------------------------------- docs/results.md


def source(name: str, record: dict[str, Any], folder: str) -> str:
    """Return the line that says where a table comes from; `folder` is that of the records."""
    return f"[Record]({folder}/{name}.md), `{record['command']}`.\n"


def measured(
    about: str, name: str, record: dict[str, Any], names: dict[str, str], folder: str
) -> str:
    """Return a table with what it is about before it, and where it comes from."""
    return f"{about}.\n{source(name, record, folder)}\n{table(record['rows'], names)}\n"


def quality(folder: str) -> list[str]:
    """Return the tables of quality at equal compute, as lines of Markdown."""
    parts = [
        "## Error at equal compute\n",
        "The shipped small models: relative L2 distance of the final sample from the plain run's",
        "of the same noise, by compute budget (MACs over plain), mean over samples whose seeds",
        "calibrated nothing. `planned` is `plan(calibration, compute=...)`, `planned-fitted` is",
        "that after `fit`; `smoothcache-fitted` has SmoothCache's rows and fills of two outputs",
        "found by `fit`; the others of ours plan for one target. A budget that a policy misses by",
        "more than 0.02 has its compute beside its error.\n",
    ]
    for name, record in qualities():
        parts += [
            f"### {_title(record)}\n",
            f"Samples: {record['settings']['samples']} ({len(record['seeds']['evaluation'])}).",
            source(name, record, folder),
            f"![Error over compute]({folder}/{name}.png)\n",
            errors(record) + "\n",
        ]
    return parts


def speed(folder: str) -> list[str]:
    """Return the tables of speed, as lines of Markdown."""
    parts = [
        "## Speed of full-size models\n",
        "Random weights: speed does not depend on them. Compute is MACs over plain; the MAC limit",
        "is the speed-up if time were MACs alone.\n",
    ]
    for name, record in newest("speed"):
        parts.append(measured(_hardware(record), name, record, SPEED_NAMES, folder))
    return parts


def _hardware(record: dict[str, Any]) -> str:
    row, settings = record["rows"][0], record["settings"]
    return (
        f"{row['model']}, {row['solver']}, {row['evaluations']} evaluations, batch "
        f"{settings['batch']}, {settings['dtype']}, {record['hardware']}"
    )


def seconds(folder: str) -> list[str]:
    """Return the tables of what plans of the shipped models save in time, as lines of Markdown."""
    parts = [
        "## Speed of the shipped models\n",
        "Their own pipelines, timed from one call of the denoiser to the next. A model this small",
        "spends time that no plan saves: around the denoiser, and around the MACs inside it.\n",
    ]
    found = {}
    for name, record in records("seconds"):
        found[record["modality"], record["settings"]["batch"]] = name, record
    for name, record in found.values():
        settings = record["settings"]
        about = (
            f"{record['rows'][0]['model']}, {settings['solver']}, {settings['evaluations']} "
            f"evaluations, {settings['batch']} samples at once, {record['hardware']}"
        )
        parts.append(measured(about, name, record, SECONDS_NAMES, folder))
    return parts


def demo(folder: str) -> list[str]:
    """Return the tables of the demos, as lines of Markdown."""
    parts = ["## What the demos show\n"]
    for name, record in newest("demo"):
        about = f"{record['rows'][0]['model']}, against the plain run from the same noise"
        parts.append(measured(about, name, record, DIGITS_NAMES, folder))
    return parts


def results() -> str:
    """Return docs/results.md."""
    folder = "../benchmarks"
    parts = [
        "# Results\n",
        "Written by `python -m tools.bench results` from the newest records in benchmarks/, which",
        "say what was measured and how to read it. There are no GPU figures yet:",
        "`python tools/gpu_check.py` makes them.\n",
        *quality(folder),
        *speed(folder),
        *seconds(folder),
        *demo(folder),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


# ---------------------------------------------------------------------------- README


def summary() -> str:
    """Return the errors of plans, of SmoothCache and of the best peer as a Markdown table."""
    titles = ["model, solver", "compute", "`planned`", "`fitted`", "threshold rule (paper)"]
    lines = []
    for _, record in qualities():
        for budget in SUMMED_UP_AT:
            rows = [row for row in record["rows"] if row["budget"] == budget]
            kinds = [_least(rows, *names) for names in SUMMED_UP]
            known = ("planned", "smoothcache", "dit-smoothcache")
            others = [row for row in rows if not row["policy"].startswith(known)]
            best = min(others, key=_rel_l2)
            cells = [*(_error(row, budget) for row in kinds), _error(best, budget)]
            cells[-1] += f", {best['policy']}"
            lines.append([_title(record), f"{budget:g}", *cells])
    return grid([*titles, "best of the others"], lines, right=range(1, len(titles)))


def _least(rows: Sequence[dict[str, Any]], *names: str) -> dict[str, Any] | None:
    """Return the row of the least error among policies."""
    return min((row for row in rows if row["policy"] in names), key=_rel_l2, default=None)


def _rel_l2(row: dict[str, Any]) -> float:
    return row["rel_l2"]


def speed_summary() -> str:
    """Return what caches of ours make of full-size models as a Markdown table."""
    lines = []
    for _, record in newest("speed"):
        for row in record["rows"]:
            if row["ours"] and row["compute"] < 1 - OFF_BUDGET:
                cells = [shown(key, row[key]) for key in SPEED_NAMES]
                about = f"{row['model']}, {row['evaluations']} evaluations"
                lines.append([about, row["setting"], *cells])
    return grid(["model", "skipped", *SPEED_NAMES.values()], lines, right=range(2, 5))


def across_modalities() -> list[str]:
    """Return the policies of the newest evaluation over modalities, as lines of Markdown."""
    found = [(path.stem, json.loads(path.read_text())) for path in FOLDER.glob("evaluation-*.json")]
    if not found:
        return []
    name, record = max(found, key=lambda each: each[1]["date"])
    cells = cells_of(record["rows"])
    modalities = dict.fromkeys(cell.modality for cell in cells)
    lines = []
    for each in standings(cells):
        own = {m: standings([c for c in cells if c.modality == m]) for m in modalities}
        ratios = [_times_least(own[modality], each.policy) for modality in modalities]
        policy = f"**{each.policy}**" if each.ours else each.policy
        possible = f"{each.cells} of {each.cells + each.missing}"
        lines.append([policy, f"{each.ratio:.2f}", *ratios, f"{each.rank:.1f}", possible])
    titles = ["policy", "times the least error", *modalities, "mean rank", "possible"]
    return [
        "**Across modalities**, the same policies on the three shipped models at the same budgets",
        f"([record](benchmarks/{name}.md), `{record['command']}`): how many times the least error",
        "of all policies each makes, geometric mean over budgets.\n",
        grid(titles, lines, right=range(1, len(titles))) + "\n",
    ]


def _times_least(found: Sequence[Standing], policy: str) -> str:
    known = {each.policy: each for each in found}
    return f"{known[policy].ratio:.2f}" if policy in known else "-"


def section() -> str:
    """Return the results of README as Markdown."""
    (name, record), *_ = qualities()
    hardware = ", ".join(dict.fromkeys(record["hardware"] for _, record in newest("speed")))
    parts = [
        BEGIN,
        "## Results\n",
        "**Error at equal compute** on the shipped small models: relative L2 distance between the",
        "final latents of the cached and the uncached run from the same noise, averaged over seeds",
        "that were not used for calibration. Compute is MACs relative to the uncached run.",
        "`planned` is `plan(calibration, compute=...)`, `fitted` the same schedule after `fit`.",
        "*At 0.31* means that a method could not reach the budget, and its compute is given.",
        "`fewer-steps` is the uncached model with fewer solver steps.\n",
        summary() + "\n",
        *across_modalities(),
        "`fit` optimises on few samples; with a stochastic solver it can be worse on others.\n",
        f"![Error over compute, {_title(record)}](benchmarks/{name}.png)\n",
        f"**Speed** of full-size models ({hardware}; random weights: speed does not depend on",
        "them). *Of the MAC limit* is the measured speed-up over what MACs alone would give;",
        "values near 1 are within the noise of timing.\n",
        speed_summary() + "\n",
        "[All results](docs/results.md), with every peer, budget and command. There are no GPU",
        "figures yet; `python tools/gpu_check.py` makes them.",
        END,
    ]
    return "\n".join(parts)


def rewritten(text: str) -> str:
    """Return README's text with the section as the records have it."""
    return _replaced(text, section(), BEGIN, END)


def exact() -> str:
    """Return docs/exact.md with its tables as the records have them."""
    tables = exact_results.section(records("exact"))
    return _replaced(EXACT.read_text(), tables, exact_results.BEGIN, exact_results.END)


def _replaced(text: str, made: str, begin: str, end: str) -> str:
    """Return a page with what is between two marks, and they, replaced."""
    before, rest = text.split(begin)
    return before + made + rest.split(end)[1]


def main() -> None:
    """Write README.md's results, docs/results.md, docs/exact.md and benchmarks/README.md."""
    README.write_text(rewritten(README.read_text()))
    RESULTS.write_text(results())
    EXACT.write_text(exact())
    INDEX.write_text(index())  # which says what these quote
