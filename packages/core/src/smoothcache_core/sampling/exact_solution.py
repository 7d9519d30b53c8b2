"""The exact solution: what a solver comes near to as its steps get smaller, from the same noise."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.call import CallReader
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.sampling.finer_run import FinerRun, finer_run
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import CallRecord, Trajectory, trajectory
from smoothcache_core.wrapping.modules import Inner, layered

FACTOR = 8
"""Times as many evaluations as the run has. What a solver of first order leaves is then an eighth,
and what extrapolation leaves of that a few hundredths; a second run, of half as many, says so."""


_NEARER = 5.0
"""How many times nearer to the exact solution than the plain run its estimate must be, at least.
What is learned of a worse one is learned of the estimate's own error to a fifth and more."""


_START = 1e-3
"""Of the first latent: rounding in half precision is less, and another start is more."""


@dataclass(frozen=True, kw_only=True)
class ExactSolution:
    """The exact solution of one seed, as well as finer runs tell it; n entries of all samples.

    Attributes:
        latents: It at the run's timesteps, (E, n) float32 on the CPU.
        final: Its final latent, (n,).
        doubts: By how much the final latent may be off, of every sample, relative L2.
        distances: How far the plain run is from it, likewise.
        extrapolated: Whether the finer runs were found to be of first order, and extrapolated.
    """

    latents: Tensor
    final: Tensor
    doubts: tuple[float, ...]
    distances: tuple[float, ...]
    extrapolated: bool

    @property
    def ends(self) -> Tensor:
        """The latents after every evaluation, the final one last, (E, n)."""
        return torch.cat((self.latents[1:], self.final[None]))

    @property
    def doubt(self) -> float:
        """By how much it may be off, mean relative L2 of the samples."""
        return sum(self.doubts) / len(self.doubts)

    @property
    def distance(self) -> float:
        """How far the plain run is from it, mean relative L2 of the samples."""
        return sum(self.distances) / len(self.distances)


def exact_solution(sampler: Sampler, plain: Trajectory, *, factor: int = FACTOR) -> ExactSolution:
    """Return the exact solution beside a recorded run, from two finer runs of its noise.

    Solvers of first order halve their error with their steps. Where plain run and finer runs are as
    far from one another as that says, the error is taken away by Richardson's extrapolation; else
    the finer run of more evaluations is taken. How far it is from one of half as many says how
    exact it is.

    Args:
        sampler: Has a `finer`.
        plain: The recorded run, with its final latent.
        factor: Times as many evaluations in the finest run; even, at least 4.

    Raises:
        CalibrationError: The finer runs begin elsewhere, do not pass the run's timesteps, or are
            not at least 5 times nearer to the exact solution than the plain run is.
        SamplerError: There is no `finer`, or something returns no final latent.
    """
    fine, half = (finer_run(sampler, plain, each) for each in (factor, factor // 2))
    _check_run(plain, fine)
    of_plain = torch.cat((plain.latents[1:], plain.end[None]))
    end = fine if plain.final is not None else _without_final(fine)
    middle = half if plain.final is not None else _without_final(half)
    first_order = _is_first_order(of_plain, end.ends, middle.ends, factor)
    if first_order:
        latents = 2.0 * end.latents - middle.latents
        final = 2.0 * end.final - middle.final
        rougher = middle.final + (middle.final - plain.end) / (factor // 2 - 1)
        left = (rougher - final) / (factor - 1)  # errors of both are as their steps multiplied
    else:
        latents, final = end.latents, end.final
        left = (middle.final - end.final) / 3.0  # of second order, or better
    latents[0] = plain.latents[0]
    found = ExactSolution(
        latents=latents,
        final=final,
        doubts=_relative(left, final, sampler.samples),
        distances=_relative(plain.end - final, final, sampler.samples),
        extrapolated=first_order,
    )
    _check_exact(found, fine.evaluations)
    return found


def exact_trajectory(sampler: Sampler, plain: Trajectory, exact: ExactSolution) -> Trajectory:
    """Return the exact solution as a trajectory: what the denoiser gives on its latents.

    The sampler is run once more and answered as in the plain run, while the denoiser is asked on
    the exact latents; so it is given all else as the run gives it.

    Args:
        sampler: How the run is made.
        plain: The plain run.
        exact: Its exact solution.
    """
    reader = CallReader(sampler.model, sampler.adapter)
    calls: list[CallRecord] = []

    def ask(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = plain.calls[len(calls)]
        latent = plain.with_entries(known.latent, exact.latents[known.evaluation])
        others, named = reader.with_latent(args, kwargs, latent)
        answer = Structure.of(call(*others, **named)).copied()
        calls.append(replace(known, latent=latent, answer=answer))
        return known.answer.copied().output()

    with torch.no_grad(), layered(sampler.model, ask):
        sampler.final_latent_if_known(plain.seed)
    found = trajectory(plain.seed, calls, None, samples=sampler.samples, part=plain.part or "all")
    own = found if plain.entries is None else found.only(plain.entries)
    return replace(own, final=None if plain.final is None else exact.final)


def _without_final(run: FinerRun) -> FinerRun:
    """Return a run whose last latent stands for its end, as where that is laid out otherwise."""
    return FinerRun(latents=run.latents, final=run.latents[-1], evaluations=run.evaluations)


def _check_run(plain: Trajectory, fine: FinerRun) -> None:
    if fine.evaluations < 2 * plain.evaluations:
        raise CalibrationError(
            f"the finer run made {fine.evaluations} evaluations, and the run itself "
            f"{plain.evaluations}: `finer` must make several times as many"
        )
    away = float((fine.latents[0] - plain.latents[0]).norm() / plain.latents[0].norm())
    if not away <= _START:
        raise CalibrationError(
            f"the finer run begins with another latent than the run (relative L2 {away:.2g}): it "
            "must begin at the same timestep, from the same noise"
        )


def _is_first_order(plain: Tensor, fine: Tensor, half: Tensor, factor: int) -> bool:
    """Return whether distances are rather those of a solver of first than of second order.

    With errors c / k^p at k times as many evaluations, the plain run is (k^p - 1) / (2^p - 1)
    times as far from the run of k as that of k / 2 is: k - 1 for order 1, a third of k^2 - 1 for
    order 2. Where it is nearer than order 1 allows, nothing is known.
    """
    one, two = factor - 1.0, (factor**2 - 1.0) / 3.0
    ratio = float((plain - fine).norm() / ((half - fine).norm() + 1e-300))
    return one * (one / two) ** 0.5 <= ratio <= (one * two) ** 0.5


def _check_exact(found: ExactSolution, evaluations: int) -> None:
    if found.distance >= _NEARER * found.doubt:
        return
    raise CalibrationError(
        f"finer runs do not tell the exact solution well enough: one of {evaluations} evaluations "
        f"may be {found.doubt:.2g} away from it (relative L2), and the plain run is "
        f"{found.distance:.2g} away, less than {_NEARER:g} times as far; make `finer` finer, or "
        "aim at the plain run"
    )


def _relative(change: Tensor, size: Tensor, samples: int) -> tuple[float, ...]:
    """Return |change| / |size| of every sample."""
    one, other = (each.double().reshape(samples, -1).norm(dim=1) for each in (change, size))
    return tuple((one / (other + 1e-300)).tolist())
