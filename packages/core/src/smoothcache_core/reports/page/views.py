"""What the template asks of a section: the same values, in the order in which they are shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from smoothcache_core.reports.page.media import Comparison, Media, Variant
from smoothcache_core.reports.page.values import ErrorPoint, Section
from smoothcache_core.reports.skip_rows import SkipMap, SkipRow


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The samples of one policy, beside the plain ones.

    Attributes:
        policy: Name of the policy.
        remark: What it gained and what it cost, if that is known.
        samples: Caption, plain sample, and what the policy made of it.
    """

    policy: str
    remark: str
    samples: Sequence[tuple[str, Media, Variant]]


def panels(section: Section) -> list[Panel]:
    """Return the samples of a section, policy by policy, in the order in which these come."""
    known = {point.policy: point for point in section.points if point.kind in ("ours", "published")}
    names = dict.fromkeys(v.policy for each in section.comparisons for v in each.variants)
    return [
        Panel(
            policy=name,
            remark=_remark(known[name]) if name in known else "",
            samples=[pair for each in section.comparisons for pair in _pairs(each, name)],
        )
        for name in names
    ]


def first_panel(section: Section, shown: Sequence[Panel]) -> Panel:
    """Return the samples to show first: those of what is recommended."""
    best = None if section.headline is None else section.headline.policy
    return next((panel for panel in shown if panel.policy == best), shown[0])


def _pairs(comparison: Comparison, policy: str) -> list[tuple[str, Media, Variant]]:
    return [
        (comparison.caption, comparison.plain, variant)
        for variant in comparison.variants
        if variant.policy == policy
    ]


def _remark(point: ErrorPoint) -> str:
    faster = "" if point.speedup is None else f"{point.speedup:.2f}x as fast, "
    return f"{faster}error {short(point.error)}"


def details(point: ErrorPoint) -> list[tuple[str, str]]:
    """Return what there is to say of a point, by name."""
    interval = ""
    if point.low is not None and point.high is not None and point.kind != "plain":
        interval = f" (95 %: {short(point.low)} to {short(point.high)})"
    error = "error, predicted" if point.kind == "planned" else "error"
    values = [
        ("compute", f"{point.compute:.3f} of plain"),
        (error, short(point.error) + interval),
        ("predicted", None if point.predicted is None else short(point.predicted)),
        ("speedup", None if point.speedup is None else f"{point.speedup:.2f}x"),
        ("seconds", None if point.seconds is None else f"{point.seconds:.3g}"),
        ("schedule", point.schedule),
    ]
    return [(name, value) for name, value in values if value is not None]


@dataclass(frozen=True, kw_only=True)
class PlotOf:
    """What a plot of error over compute shows.

    Attributes:
        id: A word that no other plot of the section has.
        title: Title of the plot.
        up: What its errors are.
        points: The policies in it, and plans.
    """

    id: str
    title: str
    up: str
    points: Sequence[ErrorPoint]


def plots(section: Section) -> list[PlotOf]:
    """Return the plots of a section: of distances from plain, and from the exact solution."""
    return [
        PlotOf(
            id="plot",
            title="Error over compute",
            up="relative L2 distance from the plain samples",
            points=section.points,
        ),
        PlotOf(
            id="exact-plot",
            title="Distance from the exact solution over compute",
            up="relative L2 distance from the exact solution of the same noise",
            points=section.exact_points,
        ),
    ]


def short(value: float) -> str:
    """Return an error with as many digits as are worth reading."""
    return f"{value:.2g}" if value < 1.0 else f"{value:.3g}"


# ---------------------------------------------------------------------------- skip maps


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rows of a kind.

    Attributes:
        kind: What they are of.
        rows: One for each site.
        computed: Share of the cells that are computed, in [0, 1].
    """

    kind: str
    rows: Sequence[SkipRow]
    computed: float


def groups(shown: SkipMap) -> list[Group]:
    """Return the rows of a skip map, kind by kind."""
    return [_group(kind, list(rows)) for kind, rows in groupby(shown.rows, lambda row: row.kind)]


def _group(kind: str, rows: Sequence[SkipRow]) -> Group:
    cells = [cell for row in rows for cell in row.computed]
    return Group(kind=kind, rows=rows, computed=sum(cells) / len(cells))


def runs(cells: Sequence[bool], line: int) -> str:
    """Return the computed cells of a line as the path of an SVG whose cells have size 1."""
    path, start = [], 0
    for computed, run in groupby(cells):
        length = len(list(run))
        if computed:
            path.append(f"M{start} {line}h{length}v1h-{length}z")
        start += length
    return "".join(path)


# ---------------------------------------------------------------------------- text


def prose(text: str) -> Markup:
    """Return paragraphs as HTML: `## headings`, and `code` in backticks; all else is text.

    Args:
        text: Paragraphs parted by empty lines.
    """
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return Markup("\n").join(_paragraph(part) for part in parts)


def _paragraph(part: str) -> Markup:
    if part.startswith("#"):
        return Markup("<h4>{}</h4>").format(part.lstrip("# "))
    return Markup("<p>{}</p>").format(inline(part))


def inline(text: str) -> Markup:
    """Return a sentence as HTML: `code` in backticks; all else is text.

    Args:
        text: Words without paragraphs.
    """
    words = re.split(r"`([^`]*)`", text)
    pieces = [
        Markup("<code>{}</code>").format(word) if index % 2 else escape(word)
        for index, word in enumerate(words)
    ]
    return Markup("").join(pieces)
