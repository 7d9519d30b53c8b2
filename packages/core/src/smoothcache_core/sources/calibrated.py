"""Schedules of what was calibrated: what all sources give along with their rows."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.solver_steps import SolverStep, SolverSteps

_DIGITS = 9  # of coefficients in a file: float32 has 7


def schedule_of(
    calibration: Calibration,
    rows: Mapping[str, Sequence[int]],
    source: Provenance,
    fills: Mapping[str, Fill] | None = None,
) -> Schedule:
    """Return a schedule for the run that was calibrated, with what tells another run from it.

    Args:
        calibration: What was measured.
        rows: What is computed, as in `Schedule`.
        source: How the rows were made.
        fills: How the rest is filled, as in `Schedule`.
    """
    return Schedule(
        evaluations=calibration.evaluations,
        rows=rows,
        fills=fills or {},
        source=source,
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
        solver_steps=_solver_steps(calibration.dynamics, rows.values()),
    )


def _solver_steps(dynamics: Dynamics | None, rows: Iterable[Sequence[int]]) -> SolverSteps | None:
    """Return the solver's steps to compare: the first, and those before the first two fills.

    The first step already tells another guidance, and a solver that adds noise; a multistep solver
    is like others until its second.
    """
    filled = np.flatnonzero((np.array(list(rows)) == 0).any(axis=0)).tolist()
    if dynamics is None or dynamics.overwritten or not filled:
        return None  # a latent that is overwritten is not only what the solver makes
    gram = joined(dynamics.gram) / dynamics.samples
    steps = [_solver_step(dynamics, gram, each) for each in sorted({1, *filled[:2]})]
    return SolverSteps(steps=tuple(steps), conditional=dynamics.conditional)


def _solver_step(dynamics: Dynamics, gram: Array, evaluation: int) -> SolverStep:
    """Return one step; `gram` is the mean products of latents, final sample and outputs, (n, n)."""
    response, evaluations = dynamics.response, dynamics.evaluations
    outputs = response.matrix[evaluation - 1, :evaluation, None] * response.weights[:evaluation]
    step = np.zeros(len(gram))
    step[evaluation] = 1.0
    for number, coefficients in enumerate(outputs.T):  # outputs of one pass follow those before
        start = evaluations + 1 + number * evaluations
        step[start : start + evaluation] -= coefficients
    step[0] -= (gram[0] @ step) / gram[0, 0]
    moved = gram[evaluation, evaluation] + gram[0, 0] - 2.0 * gram[0, evaluation]
    left = max(float(step @ gram @ step), 0.0) / max(float(moved), 1e-300)
    return SolverStep(
        evaluation=evaluation,
        outputs=tuple(tuple(map(_short, row)) for row in outputs.tolist()),
        residual=_short(float(np.sqrt(left))),
    )


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
