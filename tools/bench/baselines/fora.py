"""FORA (arXiv 2407.01425), which computes every n-th evaluation, for any compute."""

from smoothcache_core import Calibration, Schedule
from smoothcache_core.schedule import Provenance

from tools.bench.policies import OutOfReachError, spaced_row


def fora(calibration: Calibration, budget: float) -> Schedule:
    """Return the schedule of evenly spaced computed evaluations nearest to `budget` from below.

    The same as FORA for a distance that is no whole number. The first and the last evaluation are
    computed.

    Args:
        calibration: Says what an evaluation costs.
        budget: MACs over those of the plain run, in (0, 1].

    Raises:
        OutOfReachError: Not even one evaluation fits into the budget.
    """
    evaluations = calibration.evaluations
    each = calibration.cost.fraction() / evaluations
    outside = 1.0 - calibration.cost.fraction()
    computed = int((budget - outside) / each + 1e-9)  # what rounding takes away
    if computed < 1:
        raise OutOfReachError(f"computing once costs {outside + each:.3f} of the MACs already")
    return Schedule(
        evaluations=evaluations,
        rows=dict.fromkeys(calibration.kinds, spaced_row(evaluations, computed)),
        source=Provenance(
            name="interval", settings={"computed": computed}, seeds=calibration.seeds
        ),
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )
