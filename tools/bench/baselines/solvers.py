"""Multistep solvers of diffusers along grids of one's own: other ways to spend as few evaluations.

A grid is the timesteps of a run, chosen by what they are uniform in. They begin where the plain run
does, so that all solve the same equation from the same noise, and are not rounded, as they are in
diffusers, which is to the solvers' advantage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from smoothcache_core.numerics.arrays import Array

_RHO = 7.0  # of Karras' grid, as published (arXiv 2206.00364, equation 5)
_FINEST = 20001  # points that a grid of two measures is interpolated from
_MOST = 1.0 - 1e-6  # share of noise up to which the log-SNR is finite; as in diffusers
_SPREAD_FROM = 0.999  # share of noise at which grids by log-SNR begin to spread, as in diffusers


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How much noise there is at timesteps.

    Attributes:
        share: Returns the share of noise at timesteps, noise / (noise + signal), rising from 0.
        timestep: Returns the timesteps of such shares.
        first: Timestep of the plain run's first evaluation.
        last: Timestep of the last evaluation of grids that go to the end.
        end: Timestep of what has no noise, below `last`.
    """

    share: Callable[[Array], Array]
    timestep: Callable[[Array], Array]
    first: float
    last: float
    end: float


Grid = Callable[[Axis, int], Array]
"""Returns so many timesteps of evaluations, falling."""


def uniform_in_time(axis: Axis, count: int) -> Array:
    """Return evenly spaced timesteps of which the one after the last would be the end."""
    return np.linspace(axis.first, axis.end, count + 1)[:-1]


def uniform_to_the_last(axis: Axis, count: int) -> Array:
    """Return evenly spaced timesteps down to the last that can be evaluated."""
    return np.linspace(axis.first, axis.last, count)


def uniform_in_log_snr(axis: Axis, count: int) -> Array:
    """Return timesteps of evenly spaced logarithms of noise over signal; Lu's, or exponential."""
    return _spread(axis, count, np.log, np.exp)


def karras(axis: Axis, count: int) -> Array:
    """Return timesteps of evenly spaced seventh roots of noise over signal."""
    return _spread(axis, count, lambda ratio: ratio ** (1 / _RHO), lambda root: root**_RHO)


def fine(axis: Axis, count: int) -> Array:
    """Return timesteps spaced half by time and half by log-SNR, down to the last.

    With hundreds of evaluations solutions on it differ least from those of twice as many.
    """
    times = np.linspace(axis.first, axis.last, _FINEST)
    shares = np.minimum(axis.share(times), _SPREAD_FROM)
    logs = np.log(shares / (1.0 - shares))
    way = [(each - each[0]) / (each[-1] - each[0]) for each in (times, logs)]
    return np.interp(np.linspace(0.0, 1.0, count), (way[0] + way[1]) / 2, times)


def _spread(
    axis: Axis, count: int, scale: Callable[[Array], Array], back: Callable[[Array], Array]
) -> Array:
    ends = np.minimum(axis.share(np.array([axis.first, axis.last])), _SPREAD_FROM)
    begin, end = scale(ends / (1.0 - ends))
    ratios = back(np.linspace(begin, end, count))
    timesteps = axis.timestep(ratios / (1.0 + ratios))
    timesteps[0] = axis.first
    return timesteps


GRIDS: Mapping[str, Grid] = MappingProxyType(
    {
        "uniform in time": uniform_in_time,
        "uniform in time to the last": uniform_to_the_last,
        "uniform in log-SNR": uniform_in_log_snr,
        "Karras": karras,
    }
)
"""Grids that solvers are tried on; diffusers' exponential grid is that in log-SNR."""


# ---------------------------------------------------------------------------- solvers


class _OnGrid:
    """What makes a scheduler of diffusers step along a grid, whatever it is configured to do."""

    axis: Axis
    grid: Grid

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **others: Any) -> None:
        """Begin a run of so many evaluations."""
        del others
        made: Any = super()
        made.set_timesteps(num_inference_steps, device=device)
        timesteps = self.grid(self.axis, num_inference_steps)
        shares = np.minimum(self.axis.share(timesteps), _MOST)
        flow = vars(self)["_internal_dict"]["use_flow_sigmas"]
        noise = shares if flow else shares / (1.0 - shares)
        self.sigmas = torch.tensor([*noise, 0.0], dtype=torch.float32)
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32, device=device)
        self.num_inference_steps = num_inference_steps
        made.set_begin_index(0)


class _DPMSolver(_OnGrid, DPMSolverMultistepScheduler):  # pyright: ignore[reportIncompatibleMethodOverride]
    """DPM-Solver++ along a grid."""


class _UniPC(_OnGrid, UniPCMultistepScheduler):  # pyright: ignore[reportIncompatibleMethodOverride]
    """UniPC along a grid."""


def dpm_solver(config: Mapping[str, Any], axis: Axis, grid: Grid, order: int) -> Any:
    """Return DPM-Solver++ (arXiv 2211.01095) along a grid.

    Args:
        config: Configuration of a scheduler of diffusers, for how the model is to be read.
        axis: How much noise there is at timesteps.
        grid: The grid.
        order: 2 or 3.
    """
    given = {**config, "algorithm_type": "dpmsolver++", "solver_order": order}
    return _along(_DPMSolver.from_config(given), axis, grid)


def unipc(config: Mapping[str, Any], axis: Axis, grid: Grid, order: int) -> Any:
    """Return UniPC (arXiv 2302.04867) along a grid; see `dpm_solver`."""
    return _along(_UniPC.from_config({**config, "solver_order": order}), axis, grid)


def _along(made: Any, axis: Axis, grid: Grid) -> Any:
    made.axis, made.grid = axis, grid
    return made


Make = Callable[[Mapping[str, Any], Axis, Grid, int], Any]
SOLVERS: Mapping[str, tuple[Make, Sequence[int]]] = MappingProxyType(
    {
        "DPM-Solver++ 2M": (dpm_solver, (2,)),
        "DPM-Solver++ 3M": (dpm_solver, (3,)),
        "UniPC": (unipc, (2, 3)),
    }
)
"""Solvers by name, with the orders that are tried."""


def solvers_of(
    config: Mapping[str, Any], axis: Axis, more: Mapping[str, Grid] = MappingProxyType({})
) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return what makes every solver on every grid, by its name, and by its grid in words.

    Args:
        config: See `dpm_solver`.
        axis: How much noise there is at timesteps.
        more: Grids beside those that all models have.
    """
    return {
        title: {
            f"{words}, order {order}" if len(orders) > 1 else words: partial(
                make, config, axis, grid, order
            )
            for order in orders
            for words, grid in {**GRIDS, **more}.items()
        }
        for title, (make, orders) in SOLVERS.items()
    }
