"""Which policy a page recommends, and which points its plot has."""

import math

import pytest
from smoothcache_core.planning import Point
from smoothcache_core.reports import ReportRow
from smoothcache_core.reports.page.points import headline_of, measured_points, planned_points
from smoothcache_core.reports.page.values import Alternative
from smoothcache_core.schedule import Prediction, Provenance, Schedule

SOURCE = Provenance(name="whole")


def row(policy: str, compute: float | None, error: float, **values: object) -> ReportRow:
    known = {"ours": True, "seconds": 1.0, "seconds_each": (), "speedup": 2.0, "rel_l2_spread": 0.0}
    source = None if policy == "plain" else SOURCE
    made = known | {"source": source} | values
    return ReportRow(policy=policy, compute=compute, rel_l2=error, **made)  # pyright: ignore[reportArgumentType]


PLAIN = row("plain", 1.0, 0.0, ours=False, accuracy=0.9)


@pytest.mark.parametrize(
    ("rows", "policy", "why"),
    [
        ([("half", 0.5, 0.01), ("third", 0.35, 0.04), ("fifth", 0.2, 0.2)], "third", "within 0.05"),
        ([("half", 0.5, 0.3), ("third", 0.35, 0.2)], "third", "the least error"),
        ([("half", None, 0.01), ("odd", 0.4, math.nan)], "half", "within 0.05"),
        ([("plan", 0.3481, 0.04), ("fit", 0.3484, 0.03)], "fit", "within 0.05"),
    ],
)
def test_the_least_compute_within_a_small_error_is_recommended(
    rows: list[tuple[str, float | None, float]], policy: str, why: str
):
    found = headline_of([PLAIN, *(row(*each) for each in rows)], {policy: "a.json"}, {policy: "do"})
    assert found is not None
    assert found.policy == policy
    assert found.why.endswith(why)
    assert (found.schedule, found.line) == ("a.json", "do")


def test_what_errs_least_is_named_beside_what_is_recommended():
    rows = [PLAIN, row("half", 0.5, 0.01, speedup=1.9), row("third", 0.35, 0.04)]
    found = headline_of(rows, {"half": "half.json"}, {})
    assert found is not None
    assert found.closest == Alternative(
        policy="half", speedup=1.9, error=0.01, schedule="half.json"
    )
    alone = headline_of(rows[:2], {}, {})
    assert alone is not None
    assert alone.closest is None


def test_own_methods_are_recommended_before_published_ones():
    rows = [PLAIN, row("rule", 0.2, 0.01, ours=False), row("mine", 0.5, 0.02)]
    found = headline_of(rows, {}, {})
    assert found is not None
    assert found.policy == "mine"
    published = headline_of(rows[:2], {}, {})
    assert published is not None
    assert published.policy == "rule"
    assert headline_of([PLAIN], {}, {}) is None


def test_costs_are_told_beside_the_error():
    cached = row("half", 0.5, 0.01, psnr_db=41.25, accuracy=0.8, bytes_peak=2048)
    found = headline_of([PLAIN, cached], {}, {})
    assert found is not None
    assert found.costs == ["PSNR 41.2 dB", "accuracy 80%, plain 90%", "2 KiB of memory"]


def test_points_are_what_has_compute_and_a_finite_error():
    rows = [
        PLAIN,
        row(
            "mine", 0.5, 0.02, prediction=Prediction(error=0.01), rel_l2_low=0.01, rel_l2_high=0.03
        ),
        row("rule", 0.4, 0.1, ours=False, seconds=math.nan, speedup=math.nan),
        row("odd", None, 0.1),
        row("worse", 0.3, math.inf),
    ]
    points = measured_points(rows, {"mine": "schedules/mine.json"})
    assert [(point.policy, point.kind) for point in points] == [
        ("plain", "plain"), ("mine", "ours"), ("rule", "published"),
    ]  # fmt: skip
    mine, rule = points[1:]
    assert (mine.predicted, mine.low, mine.high, mine.schedule) == (
        0.01, 0.01, 0.03, "schedules/mine.json",
    )  # fmt: skip
    assert (rule.seconds, rule.speedup, rule.schedule) == (None, None, None)
    assert {point.kind for point in measured_points(rows, {}, peers=True)} == {"peer"}


def test_plans_are_named_by_what_they_skip():
    schedule = Schedule(evaluations=2, rows={"denoiser": (1, 0)})
    (point,) = planned_points([Point(name="denoiser", schedule=schedule, compute=0.5, error=0.1)])
    assert point.kind == "planned"
    assert point.policy == "predicted: whole evaluations"
