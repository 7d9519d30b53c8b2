"""The tables of docs/exact.md, from the newest records of distances to the exact solution."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench.records import FOLDER, grid

BEGIN = "<!-- exact: python -m tools.bench results -->"
END = "<!-- end of exact -->"
Record = Mapping[str, Any]
Row = Mapping[str, Any]
_KEYS = ("model", "solver", "plain_evaluations", "guidance")
_OWN = ("toward plain", "toward exact")
_LOOKS = {"accuracy": "accuracy", "frechet": "Frechet distance", "flicker": "flicker"}
"""What tells how samples look or sound by themselves, without a reference, by the key of rows."""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The rows of one model, solver, number of evaluations and guidance.

    Attributes:
        title: What it is, in words.
        name: Name of the record.
        rows: Its rows.
    """

    title: str
    name: str
    rows: Sequence[Row]

    @property
    def link(self) -> str:
        """The title, as a link to the record."""
        return f"[{self.title}](../benchmarks/{self.name}.md)"

    def plain(self) -> Row:
        """Return the row of the plain run."""
        return next(row for row in self.rows if row["policy"] == "plain")

    def at(self, budget: float) -> list[Row]:
        """Return the rows of policies at a budget."""
        unasked = ("plain", "exact")
        return [r for r in self.rows if r["budget"] == budget and r["policy"] not in unasked]

    def budgets(self) -> list[float]:
        """Return the budgets, the largest first."""
        return sorted({row["budget"] for row in self.rows}, reverse=True)


def section(found: Sequence[tuple[str, Record]]) -> str:
    """Return the tables as Markdown.

    Args:
        found: Names and contents of the records of all modalities, the newest last.
    """
    cases, halves = _cases(found, halved=False), _cases(found, halved=True)
    parts = [
        BEGIN,
        _distances(cases) + "\n",
        "How samples look by themselves; of ours, those at compute 1:\n",
        _looks(cases),
    ]
    if halves:
        parts += ["\nCalibrated on few samples of other classes than those that are judged:\n"]
        parts += [_halves(halves)]
    return "\n".join([*parts, "", *_pictures(found), END])


def _pictures(found: Iterable[tuple[str, Record]]) -> Iterator[str]:
    """Yield the newest sheet of samples of every modality."""
    drawn = {r["modality"]: name for name, r in found if (FOLDER / f"{name}.png").exists()}
    about = "exact, plain, toward plain and toward exact, and what each lacks, ten times"
    for modality, name in drawn.items():
        yield f"![{modality.title()}: {about}](../benchmarks/{name}.png)\n"


def _cases(found: Iterable[tuple[str, Record]], *, halved: bool) -> list[_Case]:
    """Return the cases of records; of several records of one, that of most policies and budgets.

    Args:
        found: Names and contents of the records, the newest last.
        halved: Whether those that were calibrated on one half of the classes are wanted.
    """
    cases: dict[tuple[Any, ...], _Case] = {}
    for name, record in found:
        parts: dict[tuple[Any, ...], list[Row]] = {}
        for row in record["rows"]:
            if ("calibrated" in row) is halved:
                parts.setdefault(tuple(row[key] for key in _KEYS), []).append(row)
        for known, rows in parts.items():
            if known not in cases or len(rows) >= len(cases[known].rows):
                cases[known] = _Case(title=_title(*known), name=name, rows=rows)
    return list(cases.values())


def _title(model: str, solver: str, evaluations: int, guidance: float) -> str:
    return f"{model}, {solver} {evaluations}, guidance {guidance:g}"


def _distances(cases: Iterable[_Case]) -> str:
    """Return distances from the exact solution, by case and budget."""
    lines = []
    for case in cases:
        for budget in case.budgets():
            rows = case.at(budget)
            kinds: Sequence[Callable[[Row], bool]] = [
                lambda row: row["policy"].startswith(_OWN[0]),
                lambda row: row["policy"].startswith(_OWN[1]),
                lambda row: row["policy"].startswith("solver"),
                lambda row: not row["policy"].startswith(("solver", "fewer-steps", *_OWN)),
            ]
            best = [min(filter(kind, rows), key=_distance, default=None) for kind in kinds]
            least = min((row for row in best if row), key=_distance, default=None)
            cells = [_shown(row, bold=row is least, named=i > 1) for i, row in enumerate(best)]
            first = [case.link, f"{_distance(case.plain()):.2g}"] if budget == 1.0 else ["", ""]
            lines.append([first[0], f"{budget:g}", first[1], *cells])
    titles = ["", "compute", "plain run", *_OWN, "best other solver", "best other cache"]
    return grid(titles, lines, right=range(1, 5))


def _distance(row: Row) -> float:
    return row["exact_rel_l2"]


def _shown(row: Row | None, *, bold: bool, named: bool) -> str:
    """Return a distance, and that over the plain run's."""
    if row is None:
        return "-"
    number = f"{_distance(row):.2g}"
    number = f"**{number}**" if bold else number
    of_solver = re.fullmatch(r"solver \((.*)\)", row["policy"])
    name = of_solver[1] if of_solver else row["policy"]
    return f"{number} ({row['of_plain']:.2f}){f', {name}' if named else ''}"


def _looks(cases: Iterable[_Case]) -> str:
    """Return what judges samples by themselves: of plain runs, exact solutions and ours."""
    lines = []
    for case in cases:
        rows = {row["policy"]: row for row in case.rows if row["budget"] == 1.0}
        ours = min((r for r in rows.values() if r["ours"]), key=_distance, default=None)
        known = [rows.get("plain"), rows.get("exact"), ours]
        for key, name in _LOOKS.items():
            if all(row is not None and key in row for row in known):
                lines.append([case.title, name, *(f"{row[key]:.3g}" for row in known if row)])
    return grid(["", "", "plain", "exact", "toward exact"], lines, right=range(2, 5))


def _halves(cases: Iterable[_Case]) -> str:
    """Return distances of plans by what they were calibrated on."""
    lines = []
    for case in cases:
        seen = dict.fromkeys(row["calibrated"] for row in case.rows)
        for budget in case.budgets():
            cells = []
            for calibrated in seen:
                rows = [row for row in case.at(budget) if row["calibrated"] == calibrated]
                best = min(rows, key=_distance, default=None)
                cells.append(_shown(best, bold=False, named=False))
            lines.append([case.link, f"{budget:g}", *cells])
    titles = dict.fromkeys(row["calibrated"] for case in cases for row in case.rows)
    return grid(["", "compute", *titles], lines, right=range(1, 2 + len(titles)))
