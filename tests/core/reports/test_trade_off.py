from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from smoothcache_core import Schedule
from smoothcache_core.errors import EvaluationError
from smoothcache_core.planning import Point
from smoothcache_core.reports import (
    ReportRow,
    predicted_and_measured,
    trade_off,
)
from smoothcache_core.schedule import Prediction, Provenance


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
