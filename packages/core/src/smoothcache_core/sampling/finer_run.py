"""Running a sampler more finely, and taking its latents where the run itself has them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock
from smoothcache_core.calls.fingerprints import timestep_of
from smoothcache_core.errors import CalibrationError, SamplerError
from smoothcache_core.numerics.local_cubic import LocalCubic
from smoothcache_core.outputs.structures import denoised, rows_of
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.trajectory import Trajectory, flat_final
from smoothcache_core.wrapping.modules import Inner, layered

_SAME = 1e-5
"""Of the range of timesteps: float32 rounds to 1e-7 of them, and a run of 1,000 evaluations is
100 times as coarse."""


@dataclass(frozen=True, kw_only=True)
class FinerRun:
    """What a finer run has of what a run has.

    Attributes:
        latents: Its latents at the run's timesteps, (E, n) float32 on the CPU.
        final: Its final latent, (n,).
        evaluations: How many evaluations it took.
    """

    latents: Tensor
    final: Tensor
    evaluations: int

    @property
    def ends(self) -> Tensor:
        """The latents after every evaluation, the final one last, (E, n)."""
        return torch.cat((self.latents[1:], self.final[None]))


def finer_run(sampler: Sampler, plain: Trajectory, factor: int) -> FinerRun:
    """Run a sampler with `factor` times as many evaluations, from the noise of a recorded run.

    Timesteps are compared by value, as the denoiser is given them. Where the finer run has none of
    a wanted value, latents are interpolated by the cubic through the four timesteps around it.

    Args:
        sampler: Has a `finer`.
        plain: The recorded run; its timesteps are known.
        factor: How many times as many evaluations, at least 2.

    Raises:
        CalibrationError: The run has no timesteps, or the finer run does not pass them, or does not
            call the model.
        SamplerError: There is no `finer`, or it returns something else than the final latent.
    """
    wanted = plain.timesteps
    if wanted is None:
        raise CalibrationError(
            "the denoiser is given no timesteps, by which a finer run's latents are found"
        )
    path, final = _walked(_finer(sampler, factor), plain, wanted)
    found = path.known
    if not path.count:
        raise CalibrationError(f"`finer` never called the {type(sampler.model).__name__}")
    missing = [timestep for timestep in wanted if timestep not in found]
    if missing:
        raise CalibrationError(
            f"the finer run does not pass timestep {missing[0]:g} of the run: it must begin and "
            "end as the run does"
        )
    own = needed(flat_final(final, plain.argument, plain.part))
    return FinerRun(
        latents=torch.stack([found[timestep] for timestep in wanted]),
        final=plain.taken(own),
        evaluations=path.count,
    )


def check_finer(sampler: Sampler) -> Callable[[int, int], object]:
    """Return what makes finer runs.

    Raises:
        SamplerError: There is none.
    """
    if sampler.finer is None:
        raise SamplerError(
            "the exact solution needs finer runs: give the sampler a function of a seed and of how "
            "many times as many evaluations it shall make, Sampler(finer=...)"
        )
    return sampler.finer


def _finer(sampler: Sampler, factor: int) -> Sampler:
    """Return the sampler whose run is the finer one."""
    finer = check_finer(sampler)
    changed = copy.copy(sampler)
    object.__setattr__(changed, "run", lambda seed: finer(seed, factor))
    return changed


@dataclass
class _Path:
    """What was found on the way.

    Attributes:
        known: Latents by the wanted timesteps.
        count: Evaluations that there were.
    """

    known: dict[float, Tensor]
    count: int


@torch.no_grad()
def _walked(sampler: Sampler, plain: Trajectory, wanted: tuple[float, ...]) -> tuple[_Path, Tensor]:
    clock = Clock(branches=sampler.branches)
    reader = CallReader(sampler.model, sampler.adapter)
    cubic = LocalCubic[Tensor](wanted, _SAME * (max(wanted) - min(wanted)))
    path = _Path(known={}, count=0)
    entries = denoised(plain.argument, plain.part).numel()

    def see(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen = reader.read(args, kwargs, clock.context, call.member)
        tick = clock.tick(seen)
        timestep = timestep_of(seen)
        if tick.evaluation == path.count and timestep is not None:
            path.count += 1
            latent = denoised(rows_of(reader.latent(args, kwargs)), plain.part).detach()
            own = latent.float().reshape(-1)[:entries].cpu()
            cubic.add(float(timestep), plain.taken(own).clone())
        return call(*args, **kwargs)

    with layered(sampler.model, see), listening(clock, sampler.model, sampler.scheduler):
        final = sampler.final_latent(plain.seed)
    path.known = cubic.end()
    return path, final
