"""The words and tables of a report."""

import re
from collections.abc import Iterable, Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.reports.tables import Table, report_table
from smoothcache_core.schedule.provenance import described


def markdown_table(shown: Table) -> str:
    """Return a table as Markdown, its columns as wide as their cells."""
    titles = [cell(title) for title in shown.columns]
    lines = [[cell(text) for text in row] for row in shown.rows]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    left = [shown.words or index == 0 for index in range(len(titles))]
    rules = [
        "-" * width if at_left else "-" * (width - 1) + ":"
        for width, at_left in zip(widths, left, strict=True)
    ]
    return "\n".join(_line(cells, widths, left) for cells in (titles, rules, *lines))


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [
        text.ljust(width) if at_left else text.rjust(width)
        for text, width, at_left in zip(cells, widths, left, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


def counted(count: int, what: str) -> str:
    """Return how many there are: `"1 sample"`, `"2 samples"`.

    Args:
        count: How many, at least 0.
        what: What one of them is called.
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def cell(text: str) -> str:
    """Return text that cannot break a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def settings(report: "Report") -> list[tuple[str, str]]:
    """Return what was measured and how, by name."""
    known = report.fingerprint
    repeat, doubt = report.plain_repeat_rel_l2, report.exact_doubt
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
        ("doubt of the exact solution", None if doubt is None else f"{doubt:.2g}"),
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
    if row.computed is None:  # without a cache, as fewer steps are
        return described(row.source)
    if not row.computed and not row.reused and row.toward == "exact":
        return f"{described(row.source)}; computes everything, and corrects outputs"
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
    shown = report_table(report)
    return environment.get_template("report.md").render(
        report=report,
        model=report.fingerprint.model_class or "denoiser",
        table=markdown_table(shown),
        notes=shown.notes,
        settings=settings(report),
        policies=[(cell(row.policy), described_row(row)) for row in report.rows],
        pictures=list((pictures or {}).items()),
    )
