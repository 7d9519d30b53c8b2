from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from smoothcache_core import Calibration
from smoothcache_core.adapters import Site
from smoothcache_core.calibration.quantised import quantised, quantised_squares
from smoothcache_core.reports import (
    error_curves,
    save_figure,
)
from smoothcache_core.schedule import Cost, Fingerprint, SiteCost


def sites_of(kinds: Sequence[str], blocks: int) -> tuple[Site, ...]:
    """The sites of a model, block by block."""
    return tuple(
        Site(path=f"blocks.{block}.{kind}", kind=kind, block=block)
        for block in range(blocks)
        for kind in kinds
    )


def cost_of(sites: Sequence[Site], total: int) -> Cost:
    costs = [SiteCost(path=s.path, kind=s.kind, block=s.block, macs=1, bytes=4) for s in sites]
    return Cost(total=total, sites=tuple(costs))


def calibrated(
    kinds: Sequence[str], *, blocks: int, evaluations: int, lags: int = 2, samples: int = 4,
    steep: bool = False,
) -> Calibration:  # fmt: skip
    """A calibration of random errors; steep ones fall by a factor of a thousand."""
    sites = sites_of(kinds, blocks)
    shape = (len(sites), 2, lags, evaluations, samples)
    errors = np.random.default_rng(0).uniform(0.1, 0.2, shape)
    if steep:
        errors *= np.geomspace(1.0, 1e-3, evaluations)[:, None]
    for lag in range(1, lags + 1):
        errors[:, :, lag - 1, evaluations - lag :] = np.nan
    return Calibration(
        sites=sites,
        branches=("cond", "uncond"),
        totals=quantised(errors).sum(axis=-1),
        squares=quantised_squares(errors).sum(axis=-1),
        samples=samples,
        seeds=(0,),
        fingerprint=Fingerprint(model_class="Toy"),
        cost=cost_of(sites, 2 * len(sites)),
    )


def visible(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize("kinds", [["attn"], ["attn", "ff"], list("abcd"), list("abcde")])
def test_error_curves_have_a_panel_per_kind_and_a_line_per_lag(kinds: list[str]):
    calibration = calibrated(kinds, blocks=2, evaluations=6)
    panels = visible(error_curves(calibration))
    assert [panel.get_title(loc="left") for panel in panels] == kinds
    for panel, curves in zip(panels, calibration.curves().values(), strict=True):
        assert [line.get_label() for line in panel.lines] == ["lag 1", "lag 2"]
        for line, curve in zip(panel.lines, curves, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(6))
            np.testing.assert_allclose(np.asarray(line.get_ydata()), curve, rtol=1e-14)


def test_error_bands_are_one_standard_deviation_over_samples():
    calibration = calibrated(["attn"], blocks=1, evaluations=5, lags=1)
    (panel,) = visible(error_curves(calibration))
    mean, spread = calibration.mean().mean(axis=(0, 1)), calibration.spread().mean(axis=(0, 1))
    (band,) = panel.collections
    corners = {(x, round(y, 12)) for x, y in np.asarray(band.get_paths()[0].vertices).tolist()}
    for x in range(4):
        for edge in (mean - spread, mean + spread):
            assert (x, round(edge[0, x], 12)) in corners


def test_errors_of_one_sample_have_no_band():
    (panel,) = visible(error_curves(calibrated(["attn"], blocks=1, evaluations=5, samples=1)))
    assert not panel.collections


@pytest.mark.parametrize(("steep", "scale"), [(False, "linear"), (True, "log")])
def test_error_axis_is_logarithmic_where_errors_differ_by_much(steep: bool, scale: str):
    calibration = calibrated(["attn", "ff"], blocks=1, evaluations=20, steep=steep)
    panels = visible(error_curves(calibration))
    assert {panel.get_yscale() for panel in panels} == {scale}
    low, high = panels[0].get_ylim()
    errors = np.stack(list(calibration.curves().values()))
    assert low <= np.nanmin(errors)
    assert high >= np.nanmax(errors)


@pytest.mark.parametrize("value", [0.0, np.inf])
def test_errors_that_have_no_place_on_the_axis_are_left_out(value: float, tmp_path: Path):
    calibration = calibrated(["attn"], blocks=1, evaluations=5, lags=4, samples=2)
    calibration.totals[...] = value
    calibration.squares[...] = value
    figure = error_curves(calibration)
    for line in visible(figure)[0].lines:
        assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).all() == np.isinf(value)
    assert save_figure(figure, tmp_path / "errors.png").exists()
