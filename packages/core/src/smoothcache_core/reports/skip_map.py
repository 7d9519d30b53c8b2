"""The picture of a schedule: what is computed and what is filled, by kind and evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from smoothcache_core.adapters.sites import Site
from smoothcache_core.reports.skip_rows import SkipMap, SkipRow, skip_rows
from smoothcache_core.reports.style import COMPUTED, INK, REUSED, new_figure, wrapped
from smoothcache_core.schedule.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# ---------------------------------------------------------------------------- schedule


def skip_map(schedule: Schedule, sites: Sequence[Site], *, name: str | None = None) -> "Figure":
    """Draw what is computed (dark) and reused (light): sites from top to bottom, grouped by kind.

    Where whole evaluations or unconditional passes are skipped, that is drawn instead of sites, and
    above them where both are.

    Args:
        schedule: What is drawn: its rows, one line for each site.
        sites: The sites to draw, such as those of a calibration; at least one if the schedule is of
            sites.
        name: What to call the schedule in the title; how it was made if not given.

    Returns:
        A matplotlib figure, for `save_figure`.

    Raises:
        EvaluationError: There are no sites.
    """
    shown = skip_rows(schedule, sites, name=name)
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    groups = {row.kind: [r for r in shown.rows if r.kind == row.kind] for row in shown.rows}
    cells = np.array([row.computed for row in shown.rows], dtype=int)
    height = len(cells) * min(0.26, max(0.11, 5.0 / len(cells)))
    width = schedule.evaluations * min(0.42, max(0.13, 7.0 / schedule.evaluations))
    width = max(width, 4.2)
    figure = new_figure(width + 1.4, height + 1.5)
    axes = figure.subplots()
    axes.imshow(
        cells, cmap=ListedColormap([REUSED, COMPUTED]), vmin=0, vmax=1, aspect="auto",
        interpolation="none",
    )  # fmt: skip
    _draw_cells(axes, *cells.shape)
    _draw_groups(axes, groups)
    patches = [Patch(color=COMPUTED, label="computed"), Patch(color=REUSED, label="reused")]
    figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    title = wrapped(_map_title(shown, cells), width)
    axes.set_title(title, fontsize=11, loc="left", color=INK, pad=8)
    return figure


def _draw_cells(axes: "Axes", lines: int, evaluations: int) -> None:
    """Part the cells by thin white lines."""
    from matplotlib.ticker import MaxNLocator

    axes.hlines(np.arange(lines - 1) + 0.5, -0.5, evaluations - 0.5, color="white", linewidth=0.6)
    axes.vlines(np.arange(evaluations - 1) + 0.5, -0.5, lines - 0.5, color="white", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xlabel("evaluation", fontsize=9, color=INK)
    axes.tick_params(length=2.5, labelsize=8, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_groups(axes: "Axes", groups: Mapping[str, Sequence[SkipRow]]) -> None:
    """Write the kinds and some of their blocks on the left, and part the groups."""
    ticks, start = {}, 0
    for kind, group in groups.items():
        every = max(1, math.ceil(len(group) / 8))
        shown = [index for index in range(0, len(group), every) if group[index].site]
        ticks |= {start + index: group[index].block for index in shown}
        axes.annotate(
            kind, (0.0, start + (len(group) - 1) / 2), xycoords=("axes fraction", "data"),
            xytext=(-28, 0), textcoords="offset points", ha="right", va="center", fontsize=9,
            color=INK,
        )  # fmt: skip
        if start:
            axes.axhline(start - 0.5, color="white", linewidth=4.0)
        start += len(group)
    axes.set_yticks(list(ticks), [str(block) for block in ticks.values()])
    if ticks:
        axes.annotate(
            "block", (0.0, 1.0), xycoords="axes fraction", xytext=(-4, 3), ha="right",
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip


def _map_title(shown: SkipMap, cells: "np.ndarray") -> str:
    if shown.compute is not None:
        return f"{shown.policy}: compute {shown.compute:.3f} of plain"
    return f"{shown.policy}: {cells.mean():.3f} of the site calls computed"
