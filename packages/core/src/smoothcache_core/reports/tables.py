"""Tables of text, and the one of all policies that every form of a report shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import EXACT_REL_L2, ReportRow

_Column = tuple[str, "Callable[[ReportRow], str | None]"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows and columns; the first column names the rows.

    Attributes:
        caption: What it shows.
        columns: Titles of the columns.
        rows: Cells, as many in every row as there are columns.
        notes: What the columns mean, a sentence or so each.
        words: Whether the cells are words, which begin at the left, not numbers.

    Raises:
        EvaluationError: A row has more or fewer cells than there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise EvaluationError(
                    f"table {self.caption!r} has {len(self.columns)} columns, but a row of "
                    f"{len(row)} cells: {list(row)}"
                )


def report_table(report: Report) -> Table:
    """Return a table of the policies, with the columns that some row has a value for.

    Args:
        report: What was measured.
    """
    columns = [(title, [show(row) for row in report.rows]) for title, show in _columns(report.rows)]
    kept = [(title, cells) for title, cells in columns if any(cell is not None for cell in cells)]
    lines = range(len(report.rows))
    return Table(
        caption="All policies",
        columns=[title for title, _ in kept],
        rows=[[cells[line] or "-" for _, cells in kept] for line in lines],
        notes=_notes(report),
    )


def _notes(report: Report) -> list[str]:
    """Return what the columns mean."""
    promised = (
        "predicted: rel_l2 as the schedule promised it, estimated or measured on calibration "
        "seeds; of schedules that aim at the exact solution the distance to that as well"
    )
    exact = (
        "exact_rel_l2: distance to the exact solution that the solver comes near to, from the same "
        f"noise; that is known to {report.exact_doubt or 0.0:.1g}"
    )
    return [
        "seconds: one call of the sampler, median over the seeds",
        "speedup: plain seconds over cached seconds, run side by side, median over the seeds",
        "of limit: speedup x compute; 1 if time were MACs alone",
        *([promised] if any(row.prediction for row in report.rows) else []),
        f"metrics: mean +- standard deviation over {report.num_samples} samples, each against the "
        "plain sample of the same noise",
        *([exact] if report.exact_doubt is not None else []),
        "95 %: bootstrap interval of the mean over these samples",
        "cached: most bytes of outputs held at once",
    ]


def _columns(rows: "Sequence[ReportRow]") -> list[_Column]:
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    summaries = dict.fromkeys(name for row in rows for name in row.summaries)
    return [
        ("policy", lambda row: row.policy),
        ("compute", lambda row: None if row.compute is None else f"{row.compute:.3f}"),
        ("seconds", lambda row: _seconds(row.seconds)),
        ("speedup", lambda row: f"{row.speedup:.2f}x"),
        ("of limit", lambda row: None if row.of_limit is None else f"{row.of_limit:.2f}"),
        ("predicted", _predicted),
        *(column for name in metrics for column in _metric_columns(name)),
        *((name, _summary_column(name)) for name in summaries),
        ("cached", lambda row: shown_bytes(row.bytes_peak)),
        ("cached, predicted", _foretold_bytes),
    ]


def _foretold_bytes(row: "ReportRow") -> str | None:
    known = None if row.prediction is None else row.prediction.bytes
    return None if known is None else shown_bytes(known)


def _predicted(row: "ReportRow") -> str | None:
    if row.prediction is None:
        return None
    found = f"{row.prediction.to_plain:.3g}" + (" (measured)" if row.prediction.measured else "")
    exact = row.prediction.exact
    return found if exact is None else f"{found}; {exact.to_exact:.3g} to the exact solution"


def _metric_columns(name: str) -> list[_Column]:
    found = [(name, _metric_column(name))]
    certain = {"rel_l2": _certainty, EXACT_REL_L2: _exact_certainty}
    return [*found, (f"95 % of {name}", certain[name])] if name in certain else found


def _certainty(row: "ReportRow") -> str | None:
    return None if row.source is None else _interval(row.interval("plain"))


def _exact_certainty(row: "ReportRow") -> str | None:
    return _interval(row.interval("exact"))


def _interval(ends: tuple[float | None, float | None]) -> str | None:
    low, high = ends
    return None if low is None or high is None else f"{low:.3g} to {high:.3g}"


def _metric_column(name: str) -> "Callable[[ReportRow], str | None]":
    def show(row: "ReportRow") -> str | None:
        metric = row.metrics.get(name)
        if metric is None:
            return None
        return (
            f"{metric.mean:.3g} +- {metric.spread:.2g}" if metric.spread else f"{metric.mean:.3g}"
        )

    return show


def _summary_column(name: str) -> "Callable[[ReportRow], str | None]":
    def show(row: "ReportRow") -> str | None:
        return f"{row.summaries[name]:.4g}" if name in row.summaries else None

    return show


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 1000.0 else f"{value:#.3g}".rstrip(".")


def shown_bytes(count: int) -> str:
    """Return bytes in the unit that fits."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1000.0:
            return f"{value:.3g} {unit}"
        value /= 1024.0
    return f"{value:.3g} GiB"
