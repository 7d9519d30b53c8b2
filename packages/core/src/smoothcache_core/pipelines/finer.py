"""Running a diffusers pipeline with more steps between the same ends.

Asking a pipeline for more steps does not do it: most schedulers then begin at another timestep, and
pass none of the run's. So its scheduler is replaced for the time of a call by one that divides
every step of the scheduler's own into as many as wanted. Schedulers are known by what they hold;
nothing of diffusers is imported.
"""

import copy
import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.errors import PipelineError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.patching import replaced

_SECOND_ORDER = "DPMSolverMultistepScheduler"
"""Of the schedulers that diffusers counts as compatible: DPM-Solver++ 2M, where none of its
settings is changed."""


_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Settings by which noise levels lie between the trained ones, and timesteps are rounded."""


_LINEAR = 2e-3
"""Of the largest timestep: what rounding to whole timesteps of 1,000 may move, and more."""


@contextmanager
def steps_divided(pipe: Any, factor: int) -> Generator[None]:
    """Make `factor` steps of every step of a pipeline inside a `with` block.

    Where the scheduler's latents are those of the trained timesteps (DDIM, DPM-Solver++, UniPC),
    the steps between are DPM-Solver++ 2M's, at whole timesteps; else they are the scheduler's own,
    at noise levels evenly between.

    Args:
        pipe: A diffusers pipeline.
        factor: How many steps to make of one, at least 2.

    Raises:
        PipelineError: How the steps of its scheduler can be divided is not known.
    """
    with replaced(pipe, "scheduler", divided(pipe.scheduler, factor)):
        yield


def divided(scheduler: Any, factor: int) -> Any:
    """Return a scheduler that makes `factor` steps of every step of another one's.

    Args:
        scheduler: A scheduler of diffusers; it stays as it is.
        factor: How many steps to make of one, at least 2.

    Raises:
        PipelineError: How its steps can be divided is not known.
    """
    own = copy.deepcopy(scheduler)
    solver = _second_order(scheduler)
    set_finer: Callable[..., None]
    if solver is not None:
        set_finer = functools.partial(_set_timesteps, solver, factor=factor)
    elif getattr(scheduler, "order", 1) == 1 and hasattr(scheduler, "sigmas"):
        solver = copy.deepcopy(scheduler)
        set_finer = functools.partial(_set_sigmas, solver, factor=factor)
    else:
        raise PipelineError(
            f"how to divide the steps of a {type(scheduler).__name__} is not known; give the "
            "sampler a function for finer runs, Sampler(finer=...)"
        )

    @functools.wraps(scheduler.set_timesteps)  # pipelines look at what arguments it takes
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        own.set_timesteps(*args, **kwargs)
        set_finer(own, args, kwargs)

    solver.finer_set_timesteps = solver.set_timesteps
    solver.set_timesteps = set_timesteps
    return solver


def _second_order(scheduler: Any) -> Any:
    """Return DPM-Solver++ 2M for the latents of a scheduler; None if they are on another scale."""
    config = getattr(scheduler, "config", {})
    flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    known = getattr(scheduler, "compatibles", ())
    found = next((each for each in known if each.__name__ == _SECOND_ORDER), None)
    scaled = getattr(scheduler, "init_noise_sigma", None) != 1.0
    between = flow or any(config.get(name) for name in _SPACINGS)
    if found is None or scaled or between or not hasattr(scheduler, "alphas_cumprod"):
        return None
    zero = config.get("set_alpha_to_one", True)
    ends = config.get("final_sigmas_type", "zero" if zero else "sigma_min")
    return found.from_config(
        dict(config), algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type=ends
    )


def _set_timesteps(
    solver: Any, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, factor: int
) -> None:
    """Give a solver whole timesteps between those of a run, and down to the first trained one."""
    del args, kwargs
    coarse = own.timesteps.detach().cpu().numpy().astype(np.float64)
    places = np.append(coarse, min(0.0, coarse[-1]))
    steps = np.rint(_between(places, factor)[:-1]).astype(int).tolist()
    if places[-1] < coarse[-1]:
        steps.append(int(places[-1]))
    solver.finer_set_timesteps(timesteps=list(dict.fromkeys(steps)), device=own.timesteps.device)


def _set_sigmas(
    solver: Any, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, factor: int
) -> None:
    """Give a copy of a scheduler noise levels between those of a run."""
    solver.finer_set_timesteps(*args, **kwargs)
    sigmas = own.sigmas.detach().cpu().double().numpy()
    coarse = own.timesteps.detach().cpu().double().numpy()
    if len(sigmas) != len(coarse) + 1:
        raise PipelineError(
            f"a {type(own).__name__} has {len(sigmas)} noise levels for {len(coarse)} timesteps, "
            "whose steps cannot be divided; give the sampler a function for finer runs, "
            "Sampler(finer=...)"
        )
    finer = _between(sigmas, factor)
    timesteps = _timesteps_of(own, sigmas, coarse)(finer[:-1])
    timesteps[::factor] = coarse
    solver.sigmas = torch.from_numpy(finer).to(own.sigmas)
    solver.timesteps = torch.from_numpy(timesteps).to(_floating(own.timesteps))
    solver.num_inference_steps = len(timesteps)


def _floating(timesteps: Tensor) -> Tensor:
    """Return timesteps as floating ones: those between need not be whole."""
    return timesteps if timesteps.is_floating_point() else timesteps.float()


def _between(places: Array, factor: int) -> Array:
    """Return places with `factor` - 1 more evenly between each two, (n,) to (f (n - 1) + 1,)."""
    at = np.arange(factor * (len(places) - 1) + 1) / factor
    return np.interp(at, np.arange(len(places)), places)


def _timesteps_of(own: Any, sigmas: Array, coarse: Array) -> Callable[[Array], Array]:
    """Return what gives the timesteps of noise levels."""
    scale = float(sigmas[:-1] @ coarse / (sigmas[:-1] @ sigmas[:-1]))
    if np.abs(scale * sigmas[:-1] - coarse).max() <= _LINEAR * coarse.max():
        return lambda levels: scale * levels
    trained = np.asarray(own.alphas_cumprod, dtype=np.float64)
    logs = np.log(np.sqrt((1.0 - trained) / trained))
    return lambda levels: np.interp(
        np.log(np.maximum(levels, 1e-12)), logs, np.arange(len(logs), dtype=np.float64)
    )
