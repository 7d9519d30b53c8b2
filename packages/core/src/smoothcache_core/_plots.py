"""Pictures of calibrations and schedules.

Figures are made without pyplot, so neither a display nor global state is involved; matplotlib is
loaded when the first one is drawn.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smoothcache_core._calibration import Calibration, Errors
from smoothcache_core._errors import EvaluationError
from smoothcache_core._files import write_atomically
from smoothcache_core._schedule import Schedule, Source
from smoothcache_core._sites import DENOISER, GUIDANCE, Site

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
COMPUTED, REUSED, INK = "#27496d", "#dfe8f0", "#333333"
LOGARITHMIC_FROM = 20.0
"""Ratio of the 95th to the 5th percentile from which errors are drawn on a logarithmic axis."""


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def _wrapped(title: str, width: float) -> str:
    """Break a title of 11 points into lines of `width` inches."""
    return textwrap.fill(title, width=max(20, int(width * 11.5)))


def png(figure: "Figure") -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as a PNG file, in one step."""
    return write_atomically(path, png(figure))


# ---------------------------------------------------------------------------- calibration


def error_curves(calibration: Calibration) -> "Figure":
    """Draw the calibrated errors: one panel per kind, one line per lag.

    A line is the mean over the sites and branches of a kind. The band around it is one standard
    deviation over samples (of each site, averaged), where there is more than one sample. The panels
    share their axes; the errors are on a logarithmic axis if they differ by more than a factor.
    """
    means = _per_kind(calibration, calibration.mean())
    spreads = _per_kind(calibration, calibration.spread())
    columns = 2 if len(means) == 4 else min(len(means), 3)
    lines = math.ceil(len(means) / columns)
    figure = new_figure(1.6 + 3.4 * columns, 1.2 + 2.6 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, kind in zip(panels, means, strict=False):
        _draw_lags(panel, means[kind], spreads[kind])
        panel.set_title(kind, fontsize=10, loc="left", color=INK)
    for panel in panels[len(means) - columns : len(means)]:
        panel.tick_params(labelbottom=True)
    for panel in panels[len(means) :]:
        panel.set_visible(False)
    _scale(panels[0], np.stack(list(means.values())), calibration.evaluations)
    _annotate(figure, panels[0], calibration)
    return figure


def _per_kind(calibration: Calibration, values: Errors) -> dict[str, Errors]:
    """Average over sites and branches, (lags, evaluations) per kind; NaN where not finite."""
    kinds = [site.kind for site in calibration.sites]
    members = {k: [i for i, kind in enumerate(kinds) if kind == k] for k in calibration.kinds}
    averages = {k: values[indices].mean(axis=(0, 1)) for k, indices in members.items()}
    return {kind: np.where(np.isfinite(a), a, np.nan) for kind, a in averages.items()}


def _draw_lags(axes: "Axes", means: Errors, spreads: Errors) -> None:
    from matplotlib import colormaps

    lags, evaluations = means.shape
    shades = colormaps["viridis"](np.linspace(0.1, 0.85, lags))
    positions = np.arange(evaluations)
    marker = "o" if evaluations <= 12 else ""
    for lag, (mean, spread, color) in enumerate(zip(means, spreads, shades, strict=True), start=1):
        label = f"lag {lag}"
        axes.plot(positions, mean, color=color, linewidth=1.6, marker=marker, ms=3.5, label=label)
        if np.any(spread > 0.0):
            low = np.maximum(mean - spread, 0.0)
            axes.fill_between(positions, low, mean + spread, color=color, alpha=0.16, linewidth=0)
    clean(axes)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)


def _scale(axes: "Axes", means: Errors, evaluations: int) -> None:
    """Choose the axis on which most of the errors can be told apart."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_xlim(-0.5, evaluations - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    positive = means[means > 0.0]
    if not positive.size:
        return
    low, high = np.percentile(positive, (5, 95))
    if high / low > LOGARITHMIC_FROM:
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / 1.6, positive.max() * 1.6)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.set_ylim(bottom=0.0)


def _annotate(figure: "Figure", first: "Axes", calibration: Calibration) -> None:
    samples = f"{calibration.samples} sample{'s' if calibration.samples > 1 else ''}"
    model = calibration.fingerprint.model_class or "denoiser"
    title = _wrapped(f"{model}: change of the outputs, {samples}", figure.get_figwidth())
    figure.suptitle(title, fontsize=11, color=INK)
    figure.supxlabel("evaluation i, reused at i + lag", fontsize=9, color=INK)
    figure.supylabel("relative L1 error", fontsize=9, color=INK)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)


# ---------------------------------------------------------------------------- schedule


def skip_map(schedule: Schedule, sites: Sequence[Site], *, name: str | None = None) -> "Figure":
    """Draw what is computed (dark) and reused (light): sites from top to bottom, grouped by kind.

    Where whole evaluations or unconditional passes are skipped, that is drawn instead of sites.

    Args:
        schedule: The schedule.
        sites: The sites to draw, at least one.
        name: What to call the schedule in the title; how it was made if not given.

    Raises:
        EvaluationError: There are no sites.
    """
    if not sites:
        raise EvaluationError("a skip map needs at least one site")
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    sites = _whole(schedule) or sites
    groups = {site.kind: [s for s in sites if s.kind == site.kind] for site in sites}
    cells = np.array([schedule.row(site) for group in groups.values() for site in group])
    if GUIDANCE in sites:
        cells[sites.index(GUIDANCE)] *= schedule.row(DENOISER)
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
    title = _wrapped(_map_title(schedule, cells, name), width)
    axes.set_title(title, fontsize=11, loc="left", color=INK, pad=8)
    return figure


def _whole(schedule: Schedule) -> list[Site]:
    """Return the rows of the whole model, if the schedule has any."""
    return [site for site in (DENOISER, GUIDANCE) if site.kind in schedule.rows]


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


def _draw_groups(axes: "Axes", groups: Mapping[str, Sequence[Site]]) -> None:
    """Write the kinds and some of their blocks on the left, and part the groups."""
    ticks, start = {}, 0
    for kind, group in groups.items():
        every = max(1, math.ceil(len(group) / 8))
        shown = [index for index in range(0, len(group), every) if group[index].path]
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


def _map_title(schedule: Schedule, cells: "np.ndarray", name: str | None) -> str:
    title = name or described(schedule.source)
    if schedule.cost is not None and schedule.cost.total:
        return f"{title}: compute {schedule.compute_fraction():.3f} of plain"
    return f"{title}: {cells.mean():.3f} of the site calls computed"


def described(source: Source) -> str:
    """Return how a schedule was made, as short text."""
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in source.settings.items()}
    return f"{source.name}({', '.join(f'{key}={value}' for key, value in values.items())})"


def clean(axes: "Axes") -> None:
    """Make the frame of some axes light."""
    axes.tick_params(length=2.5, labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8c0c8")
