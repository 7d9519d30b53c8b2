"""How far samples are from the exact solution of their noise, beside how far from the plain run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.calibrating.exact_reference import check_has_exact
from smoothcache_core.calibrating.solver_response import responding
from smoothcache_core.errors import EvaluationError, SmoothCacheError, warn
from smoothcache_core.metrics import relative_l2
from smoothcache_core.sampling.exact_solution import exact_solution
from smoothcache_core.sampling.finer_run import check_finer
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.trajectory import flat_final
from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class ExactFinal:
    """What the exact solution from the noise of a seed ends with.

    Attributes:
        latent: What is denoised of it, (samples, n) float32 on the CPU.
        doubt: By how much it may be off, mean relative L2 of the samples.
        argument: The latent that the denoiser is given first, of one pass, (samples, ...).
        part: What of that is denoised; None for all of it.
    """

    latent: Tensor
    doubt: float
    argument: Tensor
    part: LatentPart | None

    def distances(self, latents: Tensor) -> Tensor:
        """Return the relative L2 distances of final latents, (samples, ...), from it, (samples,).

        Args:
            latents: Those of a run of the same seed.

        Raises:
            SamplerError: They are not like the latent that the denoiser is given.
        """
        own = needed(flat_final(latents, self.argument, self.part))
        return relative_l2(self.latent, own.reshape(self.latent.shape))


ExactFinals = dict[int, ExactFinal]
"""Ends of exact solutions by seed."""


def exact_finals(
    sampler: Sampler,
    schedules: Iterable[Schedule],
    seeds: Sequence[int],
    *,
    wanted: bool | None,
    progress: bool,
) -> ExactFinals:
    """Return the ends of the exact solutions of all seeds; none where they are not wanted.

    Args:
        sampler: How a run is made.
        schedules: What is compared.
        seeds: Seeds of the runs.
        wanted: Whether they are; None for where a schedule aims at the exact solution. Then it is
            said if they cannot be had.
        progress: Show a progress bar.

    Raises:
        EvaluationError: They are wanted, and cannot be had.
    """
    if wanted is False or (wanted is None and not any(s.toward == "exact" for s in schedules)):
        return {}
    try:
        return _measured(sampler, seeds, progress)
    except SmoothCacheError as error:
        what = f"the distance to the exact solution cannot be measured: {error}"
        if wanted:
            raise EvaluationError(f"{what} (omit exact=True, or --exact yes)") from error
        warn(f"{what}; so schedules that aim at it are compared with the plain run alone")
        return {}


@torch.no_grad()
def _measured(sampler: Sampler, seeds: Sequence[int], progress: bool) -> ExactFinals:
    check_finer(sampler)
    bar = tqdm(seeds, desc="exact solutions", unit="seed", disable=not progress)
    return {seed: _of(sampler, seed, check=index == 0) for index, seed in enumerate(bar)}


def _of(sampler: Sampler, seed: int, *, check: bool) -> ExactFinal:
    """Return the end of one solution, and look before whether there is one, if asked to."""
    plain = record(sampler, seed)
    needed(plain.final)
    if check:
        check_has_exact(*responding(sampler, plain))
    found = exact_solution(sampler, plain)
    return ExactFinal(
        latent=found.final.reshape(sampler.samples, -1),
        doubt=found.doubt,
        argument=plain.argument,
        part=plain.part,
    )
