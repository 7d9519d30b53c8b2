"""Toward the exact solution: what every source has in common.

Whole evaluations are planned for it (`evaluations.py`). Sites are planned as for the plain run;
then the denoiser's outputs are corrected, as if all of them were computed.
"""

import math
from functools import cached_property

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import rounded
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import Simulated, reduced_run
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.promises import Promises


def check_exact(calibration: Calibration) -> None:
    """Refuse to plan toward an exact solution that was not measured.

    Raises:
        ScheduleError: It was not.
    """
    if calibration.dynamics is None or calibration.dynamics.exact is None:
        raise ScheduleError(
            "this calibration was made beside the plain run alone, so nothing is known of the "
            'exact solution; calibrate with reference="exact" (--reference exact)'
        )


def corrections(run: Simulated) -> Fill | None:
    """Return the corrections that a simulated run made; None if it made none."""
    if not run.corrected:
        return None
    return Fill(
        terms={i: rounded(terms) for i, terms in run.corrected.items()},
        inputs={i: rounded([value])[0] for i, value in run.corrected_inputs.items()},
    )


class Corrector:
    """Corrects the outputs of schedules whose rows were not planned for the exact solution.

    Args:
        calibration: Measured beside the exact solution.

    Raises:
        ScheduleError: It was not.
    """

    def __init__(self, calibration: Calibration) -> None:
        check_exact(calibration)
        self._calibration = calibration

    @cached_property
    def _run(self) -> Simulated:
        """The run in which everything is computed, and corrected."""
        assert self._calibration.dynamics is not None
        every = (True,) * self._calibration.evaluations
        run = reduced_run(self._calibration.dynamics, "exact")
        return run.simulate(Mask(denoiser=every, guidance=every), Basis())

    def corrected(self, schedule: Schedule) -> Schedule:
        """Return a schedule with corrections, and what is to be expected of it.

        Errors of its fills are taken to add to what corrections leave, as if independent.

        Args:
            schedule: Skips sites, and has a prediction of its distance to the plain run.
        """
        known = schedule.prediction
        settings = {**schedule.source.settings, "toward": "exact"}
        made = schedule.changed(
            corrected=corrections(self._run),
            source=schedule.source.changed(settings=settings),
        )
        if known is None:
            return made
        promises = Promises(self._calibration, noisy=False)
        alone = promises.of(
            made, self._run.uncertain_error, to_plain=math.hypot(self._run.to_plain, known.error)
        )
        assert alone.exact is not None
        error = math.hypot(alone.error, known.error)
        reach = (known.high or known.error) / (known.error + 1e-300) if known.error else 1.0
        assert alone.high is not None
        reach = max(reach, alone.high / (alone.error + 1e-300))
        prediction = alone.changed(
            error=error,
            low=error / reach,
            high=error * reach,
            bytes=made.predicted_bytes() if made.cost is not None else known.bytes,
            seconds=known.seconds,
            exact=alone.exact.changed(to_exact=error),
        )
        return made.changed(prediction=prediction)
