"""The words and tables of a report."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.schedule.provenance import described

_Column = tuple[str, "Callable[[ReportRow], str | None]"]


def table(rows: "Sequence[ReportRow]") -> str:
    """Return a Markdown table of the columns that some row has a value for."""
    columns = [(title, [show(row) for row in rows]) for title, show in _columns(rows)]
    kept = [(title, cells) for title, cells in columns if any(cell is not None for cell in cells)]
    widths = [max(len(title), *(len(cell or "-") for cell in cells)) for title, cells in kept]
    titles = [title for title, _ in kept]
    lines = [_line(titles, widths), "|" + "|".join(_rule(i, w) for i, w in enumerate(widths)) + "|"]
    for index in range(len(rows)):
        lines.append(_line([cells[index] or "-" for _, cells in kept], widths))
    return "\n".join(lines)


def _rule(index: int, width: int) -> str:
    return "-" * (width + 2) if index == 0 else "-" * (width + 1) + ":"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "| " + " | ".join(padded) + " |"


def _columns(rows: "Sequence[ReportRow]") -> list[_Column]:
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    summaries = dict.fromkeys(name for row in rows for name in row.summaries)
    return [
        ("policy", lambda row: cell(row.policy)),
        ("compute", lambda row: None if row.compute is None else f"{row.compute:.3f}"),
        ("seconds", lambda row: _seconds(row.seconds)),
        ("speedup", lambda row: f"{row.speedup:.2f}x"),
        ("of limit", lambda row: None if row.of_limit is None else f"{row.of_limit:.2f}"),
        ("predicted", _predicted),
        *(column for name in metrics for column in _metric_columns(name)),
        *((cell(name), _summary_column(name)) for name in summaries),
        ("cached", lambda row: _bytes(row.bytes_peak)),
        ("cached, predicted", _foretold_bytes),
    ]


def _foretold_bytes(row: "ReportRow") -> str | None:
    known = None if row.prediction is None else row.prediction.bytes
    return None if known is None else _bytes(known)


def _predicted(row: "ReportRow") -> str | None:
    if row.prediction is None:
        return None
    return f"{row.prediction.error:.3g}" + (" (measured)" if row.prediction.measured else "")


def _metric_columns(name: str) -> list[_Column]:
    found = [(cell(name), _metric_column(name))]
    return [*found, ("95 % of rel_l2", _certainty)] if name == "rel_l2" else found


def _certainty(row: "ReportRow") -> str | None:
    if row.rel_l2_low is None or row.rel_l2_high is None or row.source is None:
        return None
    return f"{row.rel_l2_low:.3g} to {row.rel_l2_high:.3g}"


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


def cell(text: str) -> str:
    """Return text that cannot break a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 1000.0 else f"{value:#.3g}".rstrip(".")


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1000.0:
            return f"{value:.3g} {unit}"
        value /= 1024.0
    return f"{value:.3g} GiB"


def settings(report: "Report") -> list[tuple[str, str]]:
    """Return what was measured and how, by name."""
    known = report.fingerprint
    repeat = report.plain_repeat_rel_l2
    settings: list[tuple[str, object]] = [
        ("denoiser", f"{known.model_class}, adapter {known.adapter!r}"),
        ("solver", known.solver),
        ("evaluations", known.evaluations),
        ("branches", ", ".join(known.branches or ()) or None),
        ("samples", f"{report.num_samples} of shape {report.sample_shape}, {report.sample_dtype}"),
        ("compute", _unit(report)),
        ("evaluation seeds", _ranges(report.seeds)),
        ("calibration seeds", _ranges(report.calibration_seeds) or "none"),
        ("calibration samples", report.calibration_samples),
        ("untimed runs of every policy", report.warmup),
        ("rel_l2 of a repeated plain run", None if repeat is None else f"{repeat:.3g}"),
        ("device", report.device),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("date", f"{report.date:%Y-%m-%d %H:%M} {report.date.tzname() or ''}".rstrip()),
    ]
    return [(name, str(value)) for name, value in settings if value is not None]


def _unit(report: "Report") -> str | None:
    if report.compute_unit == "MACs":
        return None
    return "counted in evaluations, as the MACs of this denoiser cannot be counted"


def _ranges(seeds: Iterable[int]) -> str:
    """Return seeds as text, with neighbours as a range."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in spans)


def described_row(row: "ReportRow") -> str:
    """Return how a policy was made and what it did."""
    if row.source is None:
        return "computes everything, without a cache"
    counts = f"{row.computed} outputs computed, {row.reused} reused"
    late = f", {row.recomputed} of the computed were to be reused" if row.recomputed else ""
    return f"{described(row.source)}; {counts}{late}"


def to_markdown(report: Report, *, pictures: Mapping[str, str] | None = None) -> str:
    """Return a table of the rows, with what was measured and how.

    Args:
        report: What was measured.
        pictures: File names of pictures to show below, by caption; none if not given.

    Returns:
        Markdown text.
    """
    environment = Environment(
        loader=PackageLoader("smoothcache_core"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.md").render(
        report=report,
        model=report.fingerprint.model_class or "denoiser",
        table=table(report.rows),
        settings=settings(report),
        policies=[(cell(row.policy), described_row(row)) for row in report.rows],
        pictures=list((pictures or {}).items()),
    )
