"""Pictures of errors: over compute, and beside what was predicted."""

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from smoothcache_core.errors import EvaluationError
from smoothcache_core.planning.front import Point
from smoothcache_core.reports.style import COMPUTED, INK, clean, new_figure
from smoothcache_core.schedule.provenance import Aim, Prediction
from smoothcache_core.sources import SOURCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from smoothcache_core.reports.rows import ReportRow


_GRID = "#e6e6e6"


_PEERS = "#8a8a8a"


_COLORS = (COMPUTED, "#2f8f6b", "#8456a6", "#b07aa1", "#7f6a00", "#c44e3b", "#5f7a99")
"""Of the sources of schedules, in their order."""


_LOGARITHMIC_FROM = 4.0
"""Ratio of the largest to the least error from which the axis is logarithmic: on a linear one the
policies that err little could not be told apart."""


def trade_off(
    rows: "Sequence[ReportRow]" = (),
    *,
    points: Sequence[Point] = (),
    chosen: Point | None = None,
    peers: "Sequence[ReportRow]" = (),
    distance_from: Aim = "plain",
) -> "Figure":
    """Draw error over compute: what was measured, and what is planned and known besides.

    A row is drawn with the 95 % interval of its error if that is known, else with its spread. Rows
    without compute or a finite error have no place; on a logarithmic axis, those without any error
    have none either.

    Args:
        rows: What was measured.
        points: Plans with their predicted errors, one line for each target; filled where no other
            plan has both less compute and less error. Those with another aim are left out.
        chosen: One of them, to be marked.
        peers: Other methods, one line for each policy; their errors are from the plain run.
        distance_from: What errors are distances from, whatever the rows aim at; of the `"exact"`
            solution the plain run has one too.
    """
    figure = new_figure(7.0, 4.4)
    axes = figure.subplots()
    points = [point for point in points if point.schedule.toward == distance_from]
    measured = with_distance(rows, distance_from)
    others = with_distance(peers, "plain") if distance_from == "plain" else []
    errors = [each.error for each in (*measured, *others)] + [point.error for point in points]
    positive = [error for error in errors if error > 0.0]
    logarithmic = bool(positive) and max(positive) > _LOGARITHMIC_FROM * min(positive)
    _draw_peers(axes, [each.row for each in others])
    _draw_points(axes, points, chosen if chosen in points else None)
    _draw_rows(axes, [e for e in measured if e.error > 0.0 or not logarithmic], distance_from)
    _error_axis(axes, logarithmic)
    axes.set_xlim(0.0, 1.05)
    axes.set_xlabel("compute, fraction of the plain run's MACs", fontsize=9, color=INK)
    axes.set_ylabel(f"relative L2 distance from {_NAMES[distance_from]}", fontsize=9, color=INK)
    clean(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


_NAMES: dict[Aim, str] = {"plain": "plain", "exact": "the exact solution"}


class Placed(NamedTuple):
    """A row that has a place in a picture of errors, with its compute and distance."""

    row: "ReportRow"
    compute: float
    error: float


def with_distance(rows: "Iterable[ReportRow]", aim: Aim) -> list[Placed]:
    """Return the rows that have a place in a picture of errors.

    Args:
        rows: Rows of a report.
        aim: What distances are from.
    """
    return [
        Placed(row, row.compute, error)
        for row in rows
        if row.compute is not None
        and (error := row.distance(aim)) is not None
        and math.isfinite(error)
    ]


def _draw_rows(axes: "Axes", placed: Sequence[Placed], aim: Aim) -> None:
    from matplotlib import colormaps

    for index, (row, compute, error) in enumerate(placed):
        plain = row.source is None
        below, above = _uncertainty(row, aim)
        axes.errorbar(
            [compute], [error], yerr=[[below], [above]], label=row.policy,
            color=INK if plain else colormaps["tab10"](index % 10), marker="D" if plain else "o",
            ms=6, elinewidth=1, capsize=3, linestyle="", zorder=4,
        )  # fmt: skip


def _uncertainty(row: "ReportRow", aim: Aim) -> tuple[float, float]:
    """Return how far the error bar of a row goes down and up."""
    error, (low, high) = row.distance(aim) or 0.0, row.interval(aim)
    if low is None or high is None:
        spread = row.rel_l2_spread if aim == "plain" else 0.0
        return min(spread, 0.999 * error), spread
    return max(error - low, 0.0), max(high - error, 0.0)


def _draw_points(axes: "Axes", points: Sequence[Point], chosen: Point | None) -> None:
    known = {kind.name: (kind, color) for kind, color in zip(SOURCES, cycle(_COLORS), strict=False)}
    for name in dict.fromkeys(point.name for point in points):
        line = sorted((p for p in points if p.name == name), key=lambda point: point.compute)
        source, color = known.get(name, (None, INK))
        title = source.title if source is not None and source.published else ""
        axes.plot(
            [p.compute for p in line], [p.error for p in line], color=color, linewidth=1.2,
            linestyle="--" if title else "-", zorder=2, label=f"predicted: {title or name}",
        )  # fmt: skip
        axes.scatter(
            [p.compute for p in line], [p.error for p in line], s=16, zorder=3, edgecolors=color,
            facecolors=[color if p.best else "white" for p in line], linewidths=1.0,
        )  # fmt: skip
    if chosen is not None:
        axes.plot(
            [chosen.compute], [chosen.error], color="#e0a100", marker="*", ms=15, linestyle="",
            markeredgecolor=INK, markeredgewidth=0.6, zorder=5, label=f"chosen: {chosen.name}",
        )  # fmt: skip


def _draw_peers(axes: "Axes", peers: "Sequence[ReportRow]") -> None:
    names = dict.fromkeys(row.policy for row in peers)
    for name, marker in zip(names, cycle("sv^<>pPXdh*"), strict=False):
        line = sorted((p for p in peers if p.policy == name), key=lambda row: row.compute or 0.0)
        axes.plot(
            [row.compute or 0.0 for row in line], [row.rel_l2 for row in line], color=_PEERS,
            linewidth=0.8, marker=marker, ms=4.5, markerfacecolor="white", zorder=1, label=name,
        )  # fmt: skip


def _compared(row: "ReportRow", promise: Prediction) -> tuple[Aim, float, float]:
    """Return what distances are from, and the predicted and the measured one."""
    aim = promise.toward if row.distance(promise.toward) is not None else "plain"
    return aim, promise.distance(aim) or 0.0, row.distance(aim) or 0.0


def _error_axis(axes: "Axes", logarithmic: bool) -> None:
    if logarithmic:
        axes.set_yscale("log")
        _decades(axes.yaxis, (1.0, 3.0))
    else:
        high = float(axes.dataLim.intervaly[1])
        top = high if math.isfinite(high) and high > 0.0 else 1.0
        axes.set_ylim(-0.04 * top, 1.06 * top)
    axes.grid(which="both", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _decades(axis: "Axis", subs: Sequence[float]) -> None:
    """Label a logarithmic axis by plain numbers at `subs` times powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def predicted_and_measured(rows: "Sequence[ReportRow]") -> "Figure":
    """Draw the measured error of every policy over the predicted one, with 95 % intervals.

    Both are distances from what the policy aims at; where that is the exact solution, and the
    distance to it was not measured, from the plain run.

    Predictions that were measured on calibration seeds are filled, those estimated from
    sensitivities are not.

    Args:
        rows: Rows of a report; those without a prediction are left out.

    Returns:
        A matplotlib figure, for `save_figure`.

    Raises:
        EvaluationError: No row has a prediction.
    """
    from matplotlib import colormaps

    known = [(row, row.prediction) for row in rows if row.prediction is not None]
    if not known:
        raise EvaluationError("no policy of these rows has a predicted error")
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    pairs = [(row, promise, *_compared(row, promise)) for row, promise in known]
    shown = [each for each in pairs if each[3] > 0.0 < each[4] < math.inf]
    for index, (row, promise, aim, expected, error) in enumerate(shown):
        low, high = (promise.low, promise.high) if promise.toward == aim else (None, None)
        left = 0.0 if low is None else max(promise.error - low, 0.0)
        right = 0.0 if high is None else max(high - promise.error, 0.0)
        below, above = _uncertainty(row, aim)
        color = colormaps["tab10"](index % 10)
        axes.errorbar(
            [expected], [error], xerr=[[left], [right]], yerr=[[below], [above]],
            color=color, marker="o", ms=5.5, elinewidth=1, capsize=2.5, linestyle="",
            markerfacecolor=color if promise.measured else "white", label=row.policy,
        )  # fmt: skip
    ends = [error for *_, expected, found in shown for error in (expected, found)] or [0.1, 1.0]
    span = [min(ends) / 1.6, max(ends) * 1.6]
    axes.plot(
        span, span, color=_PEERS, linewidth=0.9, linestyle="--", zorder=1, label="as predicted"
    )
    axes.set(xscale="log", yscale="log", xlim=span, ylim=span)
    for axis in (axes.xaxis, axes.yaxis):
        _decades(axis, (1.0, 2.0, 5.0))
    axes.set_xlabel("predicted error", fontsize=9, color=INK)
    axes.set_ylabel("measured error", fontsize=9, color=INK)
    axes.grid(which="both", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    clean(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure
