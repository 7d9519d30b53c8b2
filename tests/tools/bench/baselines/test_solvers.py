from typing import Any

import numpy as np
import pytest
import torch
from smoothcache_core.numerics.arrays import Array

from tools.bench.baselines.solvers import (
    GRIDS,
    Axis,
    Grid,
    dpm_solver,
    fine,
    solvers_of,
    uniform_in_log_snr,
    uniform_in_time,
    uniform_to_the_last,
    unipc,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # diffusers, DPM-Solver++
)

FLOW = Axis(share=lambda t: t / 1000, timestep=lambda s: s * 1000, first=999.0, last=1.0, end=0.0)
CONFIG = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def log_ratios(timesteps: Array) -> Array:
    shares = FLOW.share(timesteps)
    return np.log(shares / (1 - shares))


@pytest.mark.parametrize("grid", [*GRIDS.values(), fine])
@pytest.mark.parametrize("count", [2, 7, 40])
def test_grids_fall_from_the_first_timestep_of_the_run(grid: Grid, count: int):
    timesteps = grid(FLOW, count)
    assert len(timesteps) == count
    assert timesteps[0] == FLOW.first
    assert (np.diff(timesteps) < 0.0).all()
    assert timesteps[-1] > FLOW.end


def test_grids_are_uniform_in_what_they_say():
    assert np.diff(uniform_in_time(FLOW, 10)) == pytest.approx(-99.9)
    assert uniform_to_the_last(FLOW, 10)[-1] == FLOW.last
    logs = log_ratios(uniform_in_log_snr(FLOW, 10))
    assert np.diff(logs) == pytest.approx((logs[-1] - logs[0]) / 9)


def solved(scheduler: Any, steps: int) -> float:
    """Return what a solver makes of 1 by a velocity that depends on the timestep alone."""
    scheduler.set_timesteps(steps)
    x = torch.ones(1, 1, 1, 1)
    for t in scheduler.timesteps:
        velocity = torch.cos(4 * t / 1000).reshape(1, 1, 1, 1)
        x = scheduler.step(velocity, t, x).prev_sample
    return float(x)


@pytest.mark.parametrize("make", [dpm_solver, unipc])
@pytest.mark.parametrize("order", [2, 3])
def test_solvers_come_near_to_the_solution_on_a_grid(make: Any, order: int):
    exact = 1.0 - np.sin(4 * FLOW.first / 1000) / 4
    errors = [
        abs(solved(make(CONFIG, FLOW, uniform_in_time, order), steps) - exact)
        for steps in (20, 160)
    ]
    assert errors[1] < errors[0] / 3  # the first step is of first order, so is all in the end
    assert errors[1] < 5e-4


def test_every_solver_is_on_every_grid_with_every_order():
    found = solvers_of(CONFIG, FLOW, {"own": uniform_in_time})
    assert list(found) == ["DPM-Solver++ 2M", "DPM-Solver++ 3M", "UniPC"]
    assert list(found["DPM-Solver++ 2M"]) == [*GRIDS, "own"]
    assert len(found["UniPC"]) == 2 * (len(GRIDS) + 1)
    made = found["UniPC"]["Karras, order 3"]()
    made.set_timesteps(5)
    assert made.config.solver_order == 3
    assert len(made.timesteps) == 5
    assert made.sigmas[-1] == 0.0
