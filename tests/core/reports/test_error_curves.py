import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from smoothcache_core import Calibration, Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.errors import EvaluationError
from smoothcache_core.planning import Point
from smoothcache_core.reports import (
    ReportRow,
    error_curves,
    predicted_and_measured,
    save_figure,
    skip_map,
    trade_off,
)
from smoothcache_core.schedule import Cost, Fingerprint, Prediction, Provenance, SiteCost


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
        totals=errors.sum(axis=-1),
        squares=(errors**2).sum(axis=-1),
        samples=samples,
        seeds=(0,),
        fingerprint=Fingerprint(model_class="Toy"),
        cost=cost_of(sites, 2 * len(sites)),
    )


def visible(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


# ---------------------------------------------------------------------------- error curves


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


# ---------------------------------------------------------------------------- skip map


def image(figure: Figure) -> np.ndarray:
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize(("blocks", "evaluations"), [(28, 50), (3, 10), (1, 2)])
def test_skip_map_is_the_schedule_with_the_sites_grouped_by_kind(blocks: int, evaluations: int):
    sites = sites_of(["attn", "ff"], blocks)
    random = np.random.default_rng(0)
    rows = {site.path: (1, *random.integers(0, 2, evaluations - 1).tolist()) for site in sites}
    schedule = Schedule(evaluations=evaluations, rows=rows)
    expected = [rows[site.path] for kind in ("attn", "ff") for site in sites if site.kind == kind]
    np.testing.assert_array_equal(image(skip_map(schedule, sites)), expected)


def test_skip_map_is_dark_where_something_is_computed():
    schedule = Schedule(evaluations=3, rows={"attn": (1, 0, 1)})
    figure = skip_map(schedule, sites_of(["attn"], 1))
    colors = figure.axes[0].images[0].to_rgba(image(figure))
    dark, light, _ = colors[0, :, :3].sum(axis=-1)
    assert dark < 1.0 < 2.4 < light


def test_skip_map_shows_sites_without_a_row_as_computed():
    schedule = Schedule(evaluations=3, rows={"ff": (1, 0, 0)})
    figure = skip_map(schedule, sites_of(["attn", "ff"], 1))
    assert image(figure).tolist() == [[1, 1, 1], [1, 0, 0]]


def test_skip_map_names_kinds_and_blocks():
    sites = sites_of(["attn", "ff"], 28)
    axes = skip_map(Schedule(evaluations=2, rows={"attn": (1, 0)}), sites).axes[0]
    assert {"attn", "ff"} <= {text.get_text() for text in axes.texts}
    blocks = {0: 0, 4: 4, 24: 24, 28: 0, 32: 4, 52: 24}
    ticks = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    assert {line: int(ticks[line].get_text()) for line in blocks} == blocks


@pytest.mark.parametrize(
    ("total", "name", "title"),
    [
        (6, "mine", "mine: compute 0.625 of plain"),
        (None, "mine", "mine: 0.250 of the site calls computed"),
        (0, "mine", "mine: 0.250 of the site calls computed"),
        (6, None, "smooth(alpha=0.5): compute 0.625 of plain"),
    ],
)
def test_skip_map_tells_the_compute(total: int | None, name: str | None, title: str):
    sites = sites_of(["attn"], 3)
    schedule = Schedule(
        evaluations=4,
        rows={"attn": (1, 0, 0, 0)},
        source=Provenance(name="smooth", settings={"alpha": 0.5}),
        cost=None if total is None else cost_of(sites, total),
    )
    shown = skip_map(schedule, sites, name=name).axes[0].get_title(loc="left")
    assert shown.replace("\n", " ") == title


def test_skip_map_of_whole_evaluations_shows_them_instead_of_sites():
    rows = {"denoiser": (1, 0, 1, 1), "guidance": (1, 1, 0, 1)}
    figure = skip_map(Schedule(evaluations=4, rows=rows), sites_of(["attn"], 2))
    assert image(figure).tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]
    assert {"denoiser", "guidance"} == {text.get_text() for text in figure.axes[0].texts}


def test_skip_map_needs_sites():
    with pytest.raises(EvaluationError, match="at least one site"):
        skip_map(Schedule(evaluations=2, rows={"attn": (1, 0)}), [])


# ---------------------------------------------------------------------------- trade-off


def row(policy: str, compute: float | None, rel_l2: float, **values: Any) -> ReportRow:
    known = {
        "rel_l2_spread": 0.0,
        "source": None if policy == "plain" else Provenance(name="smooth"),
    }
    return ReportRow(
        policy=policy, ours=False, seconds=1.0, seconds_each=(1.0,), speedup=1.0, compute=compute,
        rel_l2=rel_l2, **(known | values),
    )  # fmt: skip


def point(name: str, compute: float, error: float, *, best: bool = False) -> Point:
    schedule = Schedule(evaluations=2, rows={"attn": (1, 0)})
    return Point(name=name, schedule=schedule, compute=compute, error=error, best=best)


def bars(figure: Figure) -> dict[str, list[list[float]]]:
    """The place of every marker with an error bar, and the lower and upper end of the bar."""
    found = {}
    for container in figure.axes[0].containers:
        marker, _, (line, *_) = container.lines  # pyright: ignore[reportAttributeAccessIssue]
        (segment,) = line.get_segments()
        ends = sorted(segment[:, 1].tolist())
        found[container.get_label()] = [marker.get_xydata()[0].tolist(), ends]
    return found


def lines(figure: Figure) -> dict[str, list[list[float]]]:
    """The labelled lines, by label."""
    named = [line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in named}


def test_trade_off_draws_a_point_per_row_that_has_a_place():
    rows = [
        row("plain", 1.0, 0.0),
        row("a", 0.5, 0.25, rel_l2_spread=0.5),
        row("unknown", None, 0.1),
        row("broken", 0.25, float("nan")),
        row("b", 0.75, 0.125),
    ]
    figure = trade_off(rows)
    (axes,) = figure.axes
    assert {name: place for name, (place, _) in bars(figure).items()} == {
        "plain": [1.0, 0.0], "a": [0.5, 0.25], "b": [0.75, 0.125],
    }  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "a", "b"]
    low, high = axes.get_ylim()
    assert low < 0.0
    assert high > 0.75


def test_trade_off_bars_are_the_interval_or_else_the_spread():
    rows = [
        row("certain", 0.5, 0.5, rel_l2_spread=0.5, rel_l2_low=0.375, rel_l2_high=0.75),
        row("spread", 0.25, 0.5, rel_l2_spread=0.25),
    ]
    assert {name: ends for name, (_, ends) in bars(trade_off(rows)).items()} == {
        "certain": [0.375, 0.75], "spread": [0.25, 0.75],
    }  # fmt: skip


def test_trade_off_of_errors_far_apart_is_logarithmic_and_leaves_plain_out():
    rows = [row("plain", 1.0, 0.0), row("a", 0.5, 1e-3), row("b", 0.25, 1e-1)]
    figure = trade_off(rows)
    assert figure.axes[0].get_yscale() == "log"
    assert list(bars(figure)) == ["a", "b"]


def test_trade_off_of_equal_samples_has_an_axis():
    low, high = trade_off([row("plain", 1.0, 0.0)]).axes[0].get_ylim()
    assert low < 0.0 < high


def test_trade_off_colours_tell_the_policies_apart():
    rows = [row("plain", 1.0, 0.0), *(row(f"p{i}", 0.1 * i, 0.1) for i in range(1, 9))]
    points = [container.lines[0] for container in trade_off(rows).axes[0].containers]  # pyright: ignore[reportAttributeAccessIssue]
    assert len({to_hex(point.get_color()) for point in points}) == 9


def test_trade_off_draws_a_line_for_every_target_and_marks_the_chosen_plan():
    points = [
        point("denoiser", 0.25, 0.02, best=True),
        point("smooth", 0.5, 0.03),
        point("denoiser", 0.5, 0.01, best=True),
    ]
    figure = trade_off(points=points, chosen=points[0])
    assert lines(figure) == {
        "predicted: denoiser": [[0.25, 0.02], [0.5, 0.01]],
        "predicted: SmoothCache's rule": [[0.5, 0.03]],
        "chosen: denoiser": [[0.25, 0.02]],
    }
    styles = {str(line.get_label()): line.get_linestyle() for line in figure.axes[0].lines}
    assert styles["predicted: denoiser"] != styles["predicted: SmoothCache's rule"]
    filled, hollow = figure.axes[0].collections
    assert {to_hex(color) for color in filled.get_facecolors()} == {"#27496d"}  # pyright: ignore[reportAttributeAccessIssue]
    assert {to_hex(color) for color in hollow.get_facecolors()} == {"#ffffff"}  # pyright: ignore[reportAttributeAccessIssue]


def test_trade_off_draws_peers_as_lines_on_the_same_axes():
    peers = [row("fora", 0.5, 0.2), row("taylor", 0.5, 0.1), row("fora", 0.25, 0.5)]
    figure = trade_off([row("ours", 0.5, 0.01)], peers=[*peers, row("x", None, 0.1)])
    assert lines(figure) == {"fora": [[0.25, 0.5], [0.5, 0.2]], "taylor": [[0.5, 0.1]]}
    assert list(bars(figure)) == ["ours"]


def test_nothing_to_draw_is_an_empty_figure():
    assert trade_off().axes[0].lines[:] == []


# ---------------------------------------------------------------------------- promises


def test_measured_errors_are_drawn_over_predicted_ones():
    rows = [
        row("plain", 1.0, 0.0),
        row("a", 0.5, 0.25, prediction=Prediction(error=0.2)),
        row("b", 0.25, 0.5, prediction=Prediction(error=0.4, low=0.3, high=0.6, measured=True)),
        row("exact", 0.9, 0.0, prediction=Prediction(error=0.0)),
    ]
    figure = predicted_and_measured(rows)
    containers = {str(c.get_label()): c.lines for c in figure.axes[0].containers}  # pyright: ignore[reportAttributeAccessIssue]
    assert {name: c[0].get_xydata()[0].tolist() for name, c in containers.items()} == {
        "a": [0.2, 0.25], "b": [0.4, 0.5],
    }  # fmt: skip
    across = containers["b"][2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(across, [0.3, 0.6])
    assert to_hex(containers["a"][0].get_markerfacecolor()) == "#ffffff"
    assert to_hex(containers["b"][0].get_markerfacecolor()) != "#ffffff"
    (diagonal,) = lines(figure).values()
    assert [x for x, _ in diagonal] == [y for _, y in diagonal]
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim()


def test_promises_need_a_prediction():
    with pytest.raises(EvaluationError, match="no policy of these rows has a predicted error"):
        predicted_and_measured([row("a", 0.5, 0.25)])


# ---------------------------------------------------------------------------- files


def test_saved_figure_is_a_png_of_its_size(tmp_path: Path):
    figure = Figure(figsize=(2.0, 1.0))
    path = save_figure(figure, tmp_path / "new" / "figure.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert [int.from_bytes(content[16:20]), int.from_bytes(content[20:24])] == [260, 130]
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_matplotlib_is_loaded_when_drawing_and_pyplot_never():
    code = """
import sys
from smoothcache_core import Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.reports import skip_map
print("matplotlib" in sys.modules)
skip_map(Schedule(evaluations=2, rows={"a": (1, 0)}), [Site(path="a", kind="a", block=0)])
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
