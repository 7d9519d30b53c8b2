"""Whether a run has an exact solution at all."""

import numpy as np

from smoothcache_core.calibrating.run_sensitivity import gram_of
from smoothcache_core.calibration.response import Response
from smoothcache_core.errors import CalibrationError
from smoothcache_core.optimize.surrogate import NOISY, ReducedRun
from smoothcache_core.sampling.trajectory import Trajectory


def check_has_exact(plain: Trajectory, response: Response) -> None:
    """Refuse a run whose solver adds noise of its own.

    Solvers that clip, and guidance that rescales, have no `response`, and are refused where that is
    measured.

    Args:
        plain: A plain run.
        response: What its solver makes of outputs.

    Raises:
        CalibrationError: The solver adds noise.
    """
    run = ReducedRun(gram_of(plain), response, np.zeros_like(response.weights))
    noise = run.noise
    if noise > NOISY:
        raise CalibrationError(
            f"the solver adds noise of its own (to {noise:.2g} of a latent), so there is no exact "
            "solution of the same noise; aim at the plain run"
        )
