"""Where points are drawn."""

from typing import Any

import pytest
from smoothcache_core.reports.page import ErrorPoint
from smoothcache_core.reports.page.labels import Box, place
from smoothcache_core.reports.page.plot import HEIGHT, LEFT, RIGHT, WIDTH, plot_of
from smoothcache_core.reports.page.values import PointKind


def point(compute: float, error: float, kind: PointKind = "ours", **values: Any) -> ErrorPoint:
    return ErrorPoint(policy=f"at {compute}", kind=kind, compute=compute, error=error, **values)


@pytest.mark.parametrize("errors", [(0.1, 0.11, 0.12), (0.001, 0.02, 0.9), (1e-7, 1e-3, 50.0)])
def test_less_error_is_lower_and_less_compute_is_left(errors: tuple[float, ...]):
    drawn = plot_of([point(0.2 + 0.3 * place, error) for place, error in enumerate(errors)])
    assert drawn is not None
    places = [(mark.x, mark.y) for mark in drawn.marks]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert all(LEFT <= x <= WIDTH - RIGHT and 0 < y < HEIGHT for x, y in places)
    assert 2 <= len(drawn.up) <= 12
    assert len({text for _, text in drawn.up}) == len(drawn.up)


def test_plain_has_a_place_where_the_axis_begins_at_0():
    near = [point(0.5, 0.1), point(0.4, 0.2), point(1.0, 0.0, "plain")]
    far = [*near, point(0.1, 5.0)]
    for points, there in ((near, True), (far, False)):
        drawn = plot_of(points)
        assert drawn is not None
        assert ("plain" in drawn.kinds) is there


def test_no_plot_without_an_error():
    assert plot_of([]) is None
    assert plot_of([point(1.0, 0.0, "plain")]) is None


def test_intervals_and_predictions_are_drawn_where_they_are_known():
    drawn = plot_of([point(0.5, 0.1, low=0.0, high=0.2, predicted=0.09), point(0.4, 3.0)])
    assert drawn is not None
    other, known = drawn.marks
    assert (other.ends, other.predicted) == (None, None)
    assert known.ends is not None
    assert known.predicted is not None
    assert known.ends[1] < known.y < known.predicted < known.ends[0]


def test_plans_and_other_methods_are_lines():
    plans = [ErrorPoint(policy="p", kind="planned", compute=c, error=0.1 / c) for c in (0.5, 0.2)]
    drawn = plot_of([*plans, point(0.5, 0.1)])
    assert drawn is not None
    ((kind, line),) = drawn.lines
    assert kind == "planned"
    assert [mark.point.kind for mark in drawn.marks] == ["planned", "planned", "ours"]
    assert line == " ".join(f"{mark.x},{mark.y}" for mark in drawn.marks[:2])


def test_names_hide_nothing():
    room = Box(left=0, top=0, right=300, bottom=100)
    points = [(20.0 + 12 * index, 50.0) for index in range(8)]
    taken = [Box.around(x, y) for x, y in points]
    places = [place("a name", x, y, taken, room) for x, y in points]
    assert sum(each is not None for each in places) >= 4
    names = taken[len(points) :]
    assert all(name.inside(room) for name in names)
    assert not any(one.meets(other) for one in names for other in taken if one is not other)
