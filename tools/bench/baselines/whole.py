"""Whole evaluations skipped by rules of others, and made by a fill rule of calibrated schedules.

Evenly, as FORA skips sites; or where the changes that TeaCache foretells add up to little. What the
published methods reuse is the blocks; here it is the output of the denoiser, extrapolated from the
outputs computed last. An audit found these to be the best other methods.
"""

from collections.abc import Sequence

import numpy as np
from smoothcache_core import Calibration, Schedule
from smoothcache_core.adapters import DENOISER
from smoothcache_core.fills import FillRule
from smoothcache_core.schedule import Provenance
from smoothcache_core.sources import frozen
from smoothcache_core.sources.extrapolated import extrapolated

from tools.bench.baselines.teacache import fitted_polynomial
from tools.bench.policies import OutOfReachError, Row, evenly_spaced

_THRESHOLDS = np.geomspace(1e-4, 1e2, 2000)
"""Accumulated changes to choose from, neighbours 0.7 % apart: finer than what a row can tell."""


def whole(calibration: Calibration, row: Row, rule: FillRule, name: str) -> Schedule:
    """Return the schedule that skips whole evaluations by a row.

    Args:
        calibration: Says what an evaluation costs, and what the schedule is for.
        row: (evaluations,), 1 compute, 0 fill.
        rule: Makes coefficients from the places of the outputs alone, as `taylor` does.
        name: Name of what made the row.
    """
    settings = {"computed": sum(row), "fill": rule.name}
    return Schedule(
        evaluations=len(row),
        rows={DENOISER.kind: row},
        fills={DENOISER.kind: extrapolated(row, rule)},
        source=Provenance(name=name, settings=settings, seeds=calibration.seeds),
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )


def even(calibration: Calibration, budget: float, rule: FillRule) -> Schedule:
    """Return the schedule that computes evenly spaced evaluations, the first and the last too.

    Args:
        calibration: See `whole`.
        budget: Evaluations computed over all, in (0, 1].
        rule: See `whole`.
    """
    return whole(calibration, evenly_spaced(calibration.evaluations, budget), rule, "even")


def tea(
    calibration: Calibration, changes: Sequence[tuple[float, float]], budget: float, rule: FillRule
) -> Schedule:
    """Return the schedule that skips where TeaCache does, at the threshold of a budget.

    Args:
        calibration: See `whole`.
        changes: See `teacache.changes_of`, of every evaluation but the first.
        budget: Evaluations computed over all, in (0, 1].
        rule: See `whole`.

    Raises:
        OutOfReachError: No threshold computes as few.
    """
    distances = [signal for signal, _ in changes]
    polynomial = fitted_polynomial(changes)
    rows = [
        frozen.teacache(distances, threshold=threshold, polynomial=polynomial).rows[DENOISER.kind]
        for threshold in _THRESHOLDS.tolist()
    ]
    within = [row for row in rows if sum(row) <= budget * calibration.evaluations + 0.5]
    if not within:
        least = min(sum(row) for row in rows)
        raise OutOfReachError(f"at any threshold at least {least} evaluations are computed")
    return whole(calibration, max(within, key=sum), rule, "teacache")
