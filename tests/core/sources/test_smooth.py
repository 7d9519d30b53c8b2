"""Where schedules come from: intervals and SmoothCache's scan."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kit.helpers import calibration_of, with_sites
from numpy.typing import NDArray
from smoothcache_core import Calibration, Schedule
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Cost, Fingerprint, SiteCost
from smoothcache_core.sources import interval, scan, smooth, smooth_to_compute

# ---------------------------------------------------------------------------- interval


@given(st.integers(1, 12), st.integers(1, 60))
def test_interval_computes_every_nth_and_the_last(every: int, evaluations: int):
    schedule = interval(every, evaluations=evaluations, kinds=["attn", "mlp"])
    computed = set(range(0, evaluations, every)) | {evaluations - 1}
    row = tuple(int(evaluation in computed) for evaluation in range(evaluations))
    assert schedule.rows == {"attn": row, "mlp": row}
    assert (schedule.source.name, dict(schedule.source.settings)) == ("interval", {"every": every})


@pytest.mark.parametrize(
    ("every", "evaluations", "computed"), [(2, 50, 26), (2, 30, 16), (2, 70, 36), (3, 50, 18)]
)
def test_interval_costs_what_is_published(every: int, evaluations: int, computed: int):
    cost = Cost(total=8, sites=(SiteCost(path="b.0.mlp", kind="mlp", block=0, macs=8, bytes=1),))
    schedule = interval(every, evaluations=evaluations, kinds=["mlp"], cost=cost)
    assert schedule.compute_fraction() == computed / evaluations


def test_interval_carries_what_it_is_for():
    fingerprint = Fingerprint(model_class="DiT", evaluations=4)
    schedule = interval(2, evaluations=4, kinds=["mlp"], fingerprint=fingerprint)
    assert schedule.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("every", "evaluations", "kinds", "message"),
    [
        (0, 5, ["mlp"], "at least 1, got 0, 5"),
        (2, 0, ["mlp"], "at least 1, got 2, 0"),
        (2, 5, [], "at least one row"),
    ],
)
def test_interval_refuses_nonsense(every: int, evaluations: int, kinds: list[str], message: str):
    with pytest.raises(ScheduleError, match=message):
        interval(every, evaluations=evaluations, kinds=kinds)


# ---------------------------------------------------------------------------- scan


def published_scan(errors: Sequence[Sequence[float]], alpha: float) -> list[int]:
    """Return what SmoothCache's released code gives (its loop, in words of our own).

    `errors[k - 1]` has as many entries as there are pairs k apart.
    """
    length = len(errors[0]) + 1
    decided: list[int | None] = [None] * length
    now = 0
    while now < length:
        for lag in reversed(range(1, len(errors) + 1)):
            row = errors[lag - 1]
            if now < len(row) and row[now] <= alpha:
                decided[now] = 1
                for later in range(now + 1, min(now + lag, length - 1) + 1):
                    decided[later] = 0
                now += lag + 1
                break
        else:
            decided[now] = 1
            now += 1
    decided[0] = decided[-1] = 1
    return [1 if entry is None else entry for entry in decided]


def strict_scan(errors: Sequence[Sequence[float]], alpha: float) -> list[int]:
    """Go on reusing while the error of the next evaluation is allowed."""
    length = len(errors[0]) + 1
    row, source = [1], 0
    for now in range(1, length):
        lag = now - source
        allowed = lag <= len(errors) and errors[lag - 1][source] <= alpha
        row.append(0 if allowed and now < length - 1 else 1)
        if not allowed:
            source = now
    return row


@st.composite
def ragged_errors(draw: st.DrawFn) -> list[list[float]]:
    evaluations, lags = draw(st.integers(2, 12)), draw(st.integers(1, 5))
    error = st.sampled_from([0.0, 0.1, 0.2, 0.3, float("inf"), float("nan")])
    lengths = [max(evaluations - lag, 0) for lag in range(1, lags + 1)]
    return [draw(st.lists(error, min_size=n, max_size=n)) for n in lengths]


def padded(errors: list[list[float]]) -> list[list[float]]:
    """Return rows of equal length, with what a scan must never look at past the end."""
    width = len(errors[0]) + 1
    return [[*row, *[0.0] * (width - len(row))] for row in errors]


@given(ragged_errors(), st.sampled_from([0.0, 0.1, 0.2, 0.25, 1.0]))
def test_scan_is_the_published_one(errors: list[list[float]], alpha: float):
    assert list(scan(padded(errors), alpha)) == published_scan(errors, alpha)
    assert scan(np.array(padded(errors)), alpha) == scan(padded(errors), alpha)


@given(ragged_errors(), st.sampled_from([0.0, 0.1, 0.2, 0.25, 1.0]))
def test_strict_scan_looks_at_every_lag(errors: list[list[float]], alpha: float):
    assert list(scan(padded(errors), alpha, strict=True)) == strict_scan(errors, alpha)


OUTPUTS = (10.0, 10.5, 20.0, 10.2, 10.3, 30.0, 10.1, 10.2)


def errors_of(outputs: Sequence[float], lags: int) -> list[list[float]]:
    return [
        [
            abs(now - outputs[i + lag]) / abs(outputs[i + lag]) if i + lag < len(outputs) else 0.0
            for i, now in enumerate(outputs)
        ]
        for lag in range(1, lags + 1)
    ]


@pytest.mark.parametrize(
    ("strict", "row"), [(False, (1, 0, 0, 0, 1, 0, 0, 1)), (True, (1, 0, 1, 1, 0, 1, 1, 1))]
)
def test_scan_of_the_worked_example(strict: bool, row: tuple[int, ...]):
    """The published scan skips evaluation 2, 50 % off, for what is right again at 3."""
    assert scan(errors_of(OUTPUTS, 3), 0.06, strict=strict) == row


@pytest.mark.parametrize("strict", [False, True])
def test_alpha_zero_computes_all_but_what_does_not_change(strict: bool):
    assert scan([[0.1] * 6, [0.1] * 6], 0.0, strict=strict) == (1,) * 6
    assert scan([[0.0] * 6, [0.0] * 6], 0.0, strict=strict) == (1, 0, 0, 1, 0, 1)
    assert scan([[0.0]], 0.0) == (1,)


# ---------------------------------------------------------------------------- smooth


def errors(attn: Sequence[Sequence[float]], ff: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([attn, ff], dtype=np.float64)


STEADY = [[0.125] * 6, [0.25] * 6]
WILD = [[0.375] * 6, [0.125] * 6]


def test_smooth_plans_each_kind_by_itself():
    schedule = smooth(calibration_of(errors(STEADY, WILD), seeds=(4, 7)), alpha=0.15)
    assert schedule.rows == {"attn": (1, 0, 1, 0, 1, 1), "ff": (1, 0, 0, 1, 0, 1)}
    assert schedule.source.seeds == (4, 7)
    assert dict(schedule.source.settings) == {
        "alpha": 0.15,
        "max_lag": 2,
        "per": "kind",
        "strict": False,
    }
    assert schedule.fingerprint == Fingerprint(model_class="Toy", adapter="toy", evaluations=6)
    assert schedule.cost is not None


def test_smooth_may_be_strict_and_short():
    calibration = calibration_of(errors(STEADY, WILD))
    assert smooth(calibration, alpha=0.15, strict=True).rows["ff"] == (1,) * 6
    assert smooth(calibration, alpha=0.9, max_lag=1).rows["ff"] == (1, 0, 1, 0, 1, 1)


def test_smooth_averages_the_sites_of_a_kind():
    """0.125 and 0.375 make 0.25."""
    calibration = calibration_of(errors(STEADY, [[0.375] * 6, [0.5] * 6]))
    sites = tuple(replace(site, kind="any") for site in calibration.sites)
    mixed = with_sites(calibration, sites)
    assert smooth(mixed, alpha=0.25).rows == {"any": (1, 0, 1, 0, 1, 1)}
    assert smooth(mixed, alpha=0.2499).rows == {"any": (1,) * 6}
    assert smooth(mixed, alpha=0.25, per="site").rows == {
        "blocks.0.attn": (1, 0, 0, 1, 0, 1),
        "blocks.0.ff": (1,) * 6,
    }


def test_smooth_averages_the_branches():
    """NaN, where a branch was not evaluated, is never reused."""
    one = calibration_of(errors(STEADY, [[0.375] * 6, [0.5] * 6]))
    both = replace(
        one,
        branches=("cond", "uncond"),
        totals=np.concatenate((one.totals, one.totals[::-1]), axis=1),
        squares=np.concatenate((one.squares, one.squares[::-1]), axis=1),
    )
    assert smooth(both, alpha=0.25).rows["attn"] == (1, 0, 1, 0, 1, 1)
    assert smooth(both, alpha=0.2499).rows["attn"] == (1,) * 6
    both.totals[0, 1, 0, 2] = np.nan
    assert smooth(both, alpha=0.25).rows["attn"] == (1, 0, 1, 1, 0, 1)


def test_smooth_never_reuses_what_is_infinitely_wrong():
    calibration = calibration_of(errors([[np.inf] * 6], [[0.0] * 6]))
    schedule = smooth(calibration, alpha=1e6)
    assert schedule.rows == {"attn": (1,) * 6, "ff": (1, 0, 1, 0, 1, 1)}


@pytest.mark.parametrize(
    ("alpha", "max_lag", "message"),
    [
        (-0.1, None, "at least 0, got -0.1"),
        (float("nan"), None, "at least 0, got nan"),
        (float("inf"), None, "at least 0, got inf"),
        (0.1, 0, "max_lag must be from 1 to 2, .*, got 0"),
        (0.1, 3, "max_lag must be from 1 to 2, .*, got 3"),
    ],
)
def test_smooth_refuses_nonsense(alpha: float, max_lag: int | None, message: str):
    with pytest.raises(ScheduleError, match=message):
        smooth(calibration_of(errors(STEADY, WILD)), alpha=alpha, max_lag=max_lag)


# ---------------------------------------------------------------------------- to a budget


@st.composite
def calibrations(draw: st.DrawFn, finite: bool = True) -> Calibration:
    shape = (2, draw(st.integers(1, 3)), draw(st.integers(2, 7)))
    level = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.4] + ([] if finite else [np.inf]))
    size = int(np.prod(shape))
    values = draw(st.lists(level, min_size=size, max_size=size))
    return calibration_of(np.reshape(values, shape), macs=3, total=10)


def by_trying_all(calibration: Calibration, strict: bool) -> list[float]:
    """Return the compute fractions of every alpha that makes a difference, ascending in alpha."""
    alphas = {0.0, *calibration.totals[np.isfinite(calibration.totals)].tolist()}
    plans = [smooth(calibration, alpha=alpha, strict=strict) for alpha in sorted(alphas)]
    return [plan.compute_fraction() for plan in plans]


@given(calibrations(), st.sampled_from([0.4, 0.55, 0.7, 0.85, 1.0]), st.booleans())
def test_a_budget_is_met_or_refused(calibration: Calibration, compute: float, strict: bool):
    possible = by_trying_all(calibration, strict)
    if min(possible) > compute:
        with pytest.raises(ScheduleError, match=f"the minimum is {min(possible):.3f}"):
            smooth_to_compute(calibration, compute=compute, strict=strict)
        return
    schedule = smooth_to_compute(calibration, compute=compute, strict=strict)
    assert schedule.compute_fraction() <= compute
    alpha = schedule.source.settings["alpha"]
    assert isinstance(alpha, float)
    assert schedule == smooth(calibration, alpha=alpha, strict=strict)
    if possible == sorted(possible, reverse=True):
        assert schedule.compute_fraction() == max(p for p in possible if p <= compute)


@given(calibrations(finite=False), st.sampled_from([0.4, 0.7, 1.0]))
def test_a_budget_is_never_exceeded(calibration: Calibration, compute: float):
    try:
        schedule = smooth_to_compute(calibration, compute=compute)
    except ScheduleError as error:
        assert "cannot be reached" in str(error)  # noqa: PT017
    else:
        assert schedule.compute_fraction() <= compute
        assert Schedule.imported(schedule.exported("smoothcache-v1")).rows == schedule.rows


@pytest.mark.parametrize("compute", [0.0, -0.5, 1.1, float("nan")])
def test_a_budget_that_is_no_fraction_is_refused(compute: float):
    with pytest.raises(ScheduleError, match=r"a fraction in \(0, 1\]"):
        smooth_to_compute(calibration_of(errors(STEADY, WILD)), compute=compute)


def test_a_budget_without_cost_is_refused():
    free = calibration_of(errors(STEADY, WILD), macs=0)
    with pytest.raises(ScheduleError, match="costs no MACs"):
        smooth_to_compute(free, compute=0.5)
