"""Pictures of calibrations and schedules.

Figures are made without pyplot, so neither a display nor global state is involved; matplotlib is
loaded when the first one is drawn.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import EvaluationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.reports.style import INK, clean, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOGARITHMIC_FROM = 20.0
"""Ratio of the 95th to the 5th percentile from which errors are drawn on a logarithmic axis: on a
linear one the small ones would lie on the axis."""


# ---------------------------------------------------------------------------- calibration


def error_curves(calibration: Calibration) -> "Figure":
    """Draw the calibrated errors: one panel per kind, one line per lag.

    A line is the mean over the sites and branches of a kind. The band around it is one standard
    deviation over samples (of each site, averaged), where there is more than one sample. The panels
    share their axes; the errors are on a logarithmic axis if they differ by more than a factor.

    Args:
        calibration: Measured with errors of sites at one lag or more.

    Returns:
        A matplotlib figure, for `save_figure`.

    Raises:
        EvaluationError: There are no sites, or no errors of theirs.
    """
    if not calibration.sites or not calibration.max_lag:
        raise EvaluationError("this calibration knows no errors of sites to draw")
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


def _per_kind(calibration: Calibration, values: Array) -> dict[str, Array]:
    """Average over sites and branches, (lags, evaluations) per kind; NaN where not finite."""
    kinds = [site.kind for site in calibration.sites]
    members = {k: [i for i, kind in enumerate(kinds) if kind == k] for k in calibration.kinds}
    averages = {k: values[indices].mean(axis=(0, 1)) for k, indices in members.items()}
    return {kind: np.where(np.isfinite(a), a, np.nan) for kind, a in averages.items()}


def _draw_lags(axes: "Axes", means: Array, spreads: Array) -> None:
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


def _scale(axes: "Axes", means: Array, evaluations: int) -> None:
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
    title = wrapped(f"{model}: change of the outputs, {samples}", figure.get_figwidth())
    figure.suptitle(title, fontsize=11, color=INK)
    figure.supxlabel("evaluation i, reused at i + lag", fontsize=9, color=INK)
    figure.supylabel("relative L1 error", fontsize=9, color=INK)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
