"""Measuring how errors of a run grow: perturbed runs beside the plain one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.calibrating.solver_response import changed, measure_response
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.exact_sums import ExactSums
from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.sampling.exact_solution import ExactSolution
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory

_CHUNK = 65536
"""Entries of every vector that are converted to float64 at once: half a megabyte of each, where a
copy of all vectors of a large latent would take more memory than the run."""


# ---------------------------------------------------------------------------- measuring


def measure_dynamics(
    sampler: Sampler,
    plain: Trajectory,
    samples: int,
    *,
    probes: Sequence[int],
    conditional: int | None,
    response: Response | None = None,
) -> Dynamics:
    """Measure one plain trajectory.

    Args:
        sampler: How a run is made; its model is called once more for each probe and evaluation
            after it.
        plain: The plain run's recorded trajectory.
        samples: Samples in it, at least 1.
        probes: Evaluations, from 1 on, whose output is perturbed before the run is continued.
        conditional: Index of the conditional pass if the adapter says so.
        response: What the solver makes of outputs, if that is known already.

    Raises:
        CalibrationError: The solver is not affine, two runs of a seed differ, or something is not
            finite.
    """
    known = response or measure_response(sampler, plain)
    sums = _Perturbed(plain, known)
    for evaluation in probes:
        sums.add(sampler, evaluation)
    return Dynamics(
        gram=_cut(gram_of(plain) * samples),
        samples=samples,
        response=known,
        response_seed=plain.seed,
        sum_dx2=_cut(sums.dx2),
        sum_dxdy=_cut(sums.dxdy),
        sum_dy2=_cut(sums.dy2),
        effects=_cut(sums.effects),
        effect_counts=sums.counts,
        conditional=conditional,
        overwritten=plain.entries is not None,
        seconds=min(sums.seconds, default=0.0),
    )


def exact_sums(
    plain: Trajectory, found: ExactSolution, asked: Trajectory, samples: int
) -> ExactSums:
    """Return what is kept of an exact solution.

    Args:
        plain: The plain run.
        found: Its exact solution.
        asked: What the denoiser gives on that.
        samples: Samples in it, at least 1.

    Raises:
        CalibrationError: Something is not finite.
    """
    own = torch.cat((found.ends, _outputs(asked)))
    products = _products(own, torch.cat((_vectors(plain), own)))
    errors = np.array([sum(found.doubts), sum(found.distances)])
    return ExactSums(products=_cut(products * samples), errors=_cut(errors))


def _cut(values: Array) -> Array:
    try:
        return cut(values)
    except ValueError as error:
        raise CalibrationError(str(error)) from error


def gram_of(plain: Trajectory) -> Array:
    """Return the mean products of the entries of a run's vectors, (n, n); see `Dynamics.gram`."""
    vectors = _vectors(plain)
    return _products(vectors, vectors)


def _vectors(plain: Trajectory) -> Tensor:
    """Return latents, final sample and outputs of a run, (n, entries)."""
    return torch.cat((plain.latents, plain.end[None], _outputs(plain)))


def _outputs(run: Trajectory) -> Tensor:
    """Return the outputs of all passes, one pass after the other, (parts E, entries)."""
    return run.outputs.transpose(0, 1).flatten(0, 1)


def _products(rows: Tensor, columns: Tensor) -> Array:
    """Return mean products of entries, (rows, columns)."""
    entries = rows.shape[1]
    total = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for start in range(0, entries, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        total += rows[:, chunk].double() @ columns[:, chunk].double().T
    return (total / entries).numpy()


class _Perturbed:
    """Continues a trajectory from perturbed outputs, and sums what comes of it."""

    def __init__(self, plain: Trajectory, response: Response) -> None:
        evaluations, parts, _ = plain.outputs.shape
        self._plain = plain
        self._response = response
        self.dx2 = np.zeros(evaluations)
        self.dxdy = np.zeros((evaluations, parts))
        self.dy2 = np.zeros((evaluations, parts))
        self.effects = np.zeros(evaluations)
        self.counts = np.zeros(evaluations, dtype=np.int64)
        self.seconds: list[float] = []

    def add(self, sampler: Sampler, evaluation: int) -> None:
        """Give the predecessor's output at `evaluation`, and let the model go on from there."""
        plain = self._plain
        change = plain.outputs[evaluation - 1] - plain.outputs[evaluation]
        calls = len(plain.calls) // plain.evaluations

        def reply(number: int, tick: Tick, model: Callable[[], Any]) -> Structure | None:
            del model
            if tick.evaluation < evaluation:
                return plain.calls[number].answer
            if tick.evaluation > evaluation:
                return None
            return changed(plain, number, change)

        run = record(sampler, plain.seed, reply, like=plain)
        if len(run.calls) != plain.evaluations * calls:
            raise CalibrationError("a perturbed run had another number of evaluations")
        self._sum(run, evaluation, change)
        times = [call.seconds for call in run.calls if call.seconds is not None]
        if times:
            self.seconds.append(float(np.median(times)) * calls)

    def _sum(self, run: Trajectory, evaluation: int, change: Tensor) -> None:
        plain, after = self._plain, slice(evaluation + 1, None)
        dx = (run.latents - plain.latents)[after].double()
        dy = (run.outputs - plain.outputs)[after].double()
        size = (plain.latents[after].double().square().mean(dim=1) + 1e-300)[:, None]
        self.dx2[after] += (dx.square() / size).mean(dim=1).numpy()
        products = torch.einsum("en,epn->epn", dx, dy).mean(dim=2)
        self.dxdy[after] += (products / size).numpy()
        self.dy2[after] += (dy.square().mean(dim=2) / size).numpy()
        weights = torch.from_numpy(self._response.weights[evaluation]).float()
        guided = (weights @ change).double().square().mean().sqrt()
        unseen = plain.final is None and evaluation == plain.evaluations - 1
        if guided and not unseen:
            end = plain.end.double()
            effect = (run.end.double() - end).norm() / end.norm() / guided
            self.effects[evaluation] += float(effect)
            self.counts[evaluation] += 1
