"""Running a sampler while the calls of its denoiser are recorded, replayed or changed.

The sampler is a black box. What can be done with it is to answer the denoiser's calls: with what
the model says, with what it said before, or with something else. That is enough to learn all that
planning needs to know of a solver, see `calibrating/solver_response.py`.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.calls.fingerprints import timestep_of
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure, rows_of
from smoothcache_core.outputs.tensors import synchronize
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, trajectory
from smoothcache_core.wrapping.modules import Inner, layered

Reply = Callable[[int, Tick, Callable[[], Any]], Structure | None]
"""Gives the answer to a call from its number, its place, and a function that asks the model; None
for what the model says."""


@torch.no_grad()
def recorded_calls(
    sampler: Sampler, seed: int, reply: Reply | None = None
) -> tuple[list[CallRecord], Tensor | None]:
    """Run a sampler and record every call of its denoiser; `reply` may answer for the model.

    Returns:
        The calls, and the final latent; None if it is not known, or the run was stopped.

    Raises:
        SamplerError: `run` returned something else.
    """
    clock = Clock(branches=sampler.branches)
    reader = CallReader(sampler.model, sampler.adapter)
    calls: list[CallRecord] = []

    def around(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen = reader.read(args, kwargs, clock.context, call.member)
        tick = clock.tick(seen)
        latent = rows_of(reader.latent(args, kwargs)).detach().clone()
        model = functools.partial(call, *args, **kwargs)
        answer = None if reply is None else reply(len(calls), tick, model)
        seconds = None
        if answer is None:
            output, seconds = _timed(model, latent.device)
            answer = Structure.of(output).copied()
        else:
            output = answer.copied().output()
        calls.append(
            CallRecord(
                evaluation=tick.evaluation,
                branch=tick.branch,
                latent=latent,
                answer=answer,
                seconds=seconds,
                timestep=timestep_of(seen),
            )
        )
        return output

    with layered(sampler.model, around), listening(clock, sampler.model, sampler.scheduler):
        try:
            final = sampler.final_latent_if_known(seed)
        except Stop:
            final = None
    return calls, final


def record(
    sampler: Sampler, seed: int, reply: Reply | None = None, *, like: Trajectory | None = None
) -> Trajectory:
    """Run a sampler to its end and return the trajectory; see `recorded_calls`.

    Args:
        sampler: How a run is made.
        seed: Seed of the run.
        reply: May answer for the model.
        like: A run of the same sampler, whose part and entries of the latent are taken; if not
            given the part is found out, and all its entries are taken.

    Raises:
        CalibrationError: The denoiser was not called, or its output is not like its latent.
        SamplerError: `run` returned something else than the final latent or None.
    """
    calls, final = recorded_calls(sampler, seed, reply)
    if not calls:
        raise CalibrationError(f"`run` never called the {type(sampler.model).__name__}")
    known = sampler.part if like is None else like.part or "all"
    run = trajectory(seed, calls, final, samples=sampler.samples, part=known)
    return run if like is None or like.entries is None else run.only(like.entries)


def _timed(model: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Call the model; return its output and the seconds it took."""
    synchronize(device)
    start = time.perf_counter()
    output = model()
    synchronize(device)
    return output, time.perf_counter() - start
