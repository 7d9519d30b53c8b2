"""What a planner's estimate of the error is worth: the error to expect, and its interval.

Planners estimate the error of the final sample from sums over a plain run, without running the
schedule. Such an estimate is off in ways that depend on how it was made: a reduced run with a
linear denoiser says too much of small errors and too little of large ones, where drifts feed on
themselves, and sums of effects of sites overlook that errors of sites lag alike. So estimates of
all sources would not be comparable, and `auto` compares them.

Here they are brought to one scale by straight lines in logarithms, with what is left of the
logarithms as the spread. Lines and spreads were fitted to 288 plans of 11 runs of the shipped
models of digits: DDIM in 8, 12, 25 and 50 steps, DPM-Solver++ 2M in 16 and 25, its SDE in 30, and
the flow by Euler in 16, 24 and 40 steps and by DPM-Solver++ 2M in 20, at guidance 1, 1.5, 3 and 4,
planned from 2, 4 and 12 samples. `python -m tools.bench promises` judges them on runs with other
solvers, steps, strengths and seeds, and on the spoken and the moving digits, which had no part in
it. Those err two to three times as much as the lines say, so where some plans of a calibration were
run (`verify`), predictions are multiplied by what came of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.outcomes import Estimator, estimator_of, log_factor
from smoothcache_core.schedule.provenance import Distances, Prediction
from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class _Line:
    """The expected error is exp(`offset`) * estimate^`slope` * evaluations^`of_steps`.

    Attributes:
        offset: Logarithm of a factor.
        slope: Power of the estimate.
        of_steps: Power of the number of evaluations.
        noisy: Added to `offset` where the solver adds noise.
        spread: Standard deviation of the logarithm of the true error over the expected one, on
            runs that were left out of the fit.
    """

    offset: float
    slope: float = 1.0
    of_steps: float = 0.0
    noisy: float = 0.0
    spread: float


_WHOLE = _Line(offset=-0.2, slope=1.3, of_steps=0.42, spread=0.42)
"""Whole evaluations and unconditional passes, estimated on a reduced run."""


_EXACT = _Line(offset=0.25, spread=0.42)
"""Toward the exact solution, estimated on a run that is reduced about it. Of the flow by Euler in
30 steps, planned from 20 samples, other samples were 0.9 to 1.6 times as far from it as estimated
at compute fractions from 1 to 0.25, and 2.1 times at 0.15. The spread is that of `_WHOLE`."""


_FILLED = _Line(offset=0.46, slope=1.14, noisy=-0.33, spread=0.34)
"""Sites with coefficients, estimated as a sum of effects."""


_REUSED = _Line(offset=-0.07, slope=0.98, noisy=-0.7, spread=0.36)
"""Sites that reuse, as those of published rules; estimated likewise."""


_LINES: Mapping[Estimator, _Line] = {
    "whole": _WHOLE,
    "filled": _FILLED,
    "reused": _REUSED,
    "exact": _EXACT,
}


_STEPS = (8, 50)
"""Evaluations of the runs fitted to; beyond, lines go on as constants."""


_FACTOR = (0.4, 2.0)
"""The least and the most that an estimate is multiplied by: no more was seen."""


_OF_SAMPLES = 0.4
"""Standard deviation of the logarithm of the error from sample to sample; 0.2 to 0.3 were seen."""


_TRANSFERRED = 0.25
"""What is added to the spread, in squares, where the calibration was resampled: errors of
transferred plans were up to 1.5 times those of plans of their own (docs/how-it-works.md)."""


LEAST_EXPLAINED = 0.2
"""Share of the outputs' changes that the denoiser's gain explains, the least of the runs fitted to.
Below, errors of single samples were up to ten times those of most: spoken digits, with 0.1."""


_UNEXPLAINED = 2.0
"""What the spread is multiplied by there, where it is not known."""


_WIDTH = 2.2
"""Standard deviations of a 95 % interval: Student's t with 10 degrees of freedom, one for each of
the runs fitted to less one, as what is off is off for a run as a whole."""


class Promises:
    """Turns estimates for one calibration into predictions.

    Args:
        calibration: What was measured.
        noisy: Whether the solver adds noise.
    """

    def __init__(self, calibration: Calibration, *, noisy: bool) -> None:
        self._evaluations = calibration.evaluations
        self._samples = calibration.samples
        self._transferred = calibration.fingerprint.transferred_from is not None
        self._noisy = noisy
        dynamics = calibration.dynamics
        known = None if dynamics is None else dynamics.exact
        self._exact = None if known is None else known.distance(calibration.samples)
        self._explained = explained_share(calibration)
        self._outcomes = calibration.outcomes

    def of(
        self,
        schedule: Schedule,
        estimate: float,
        *,
        by_guidance: Mapping[float, float] | None = None,
        bytes: int | None = None,
        seconds: float | None = None,
        to_plain: float | None = None,
    ) -> Prediction:
        """Return the error to expect, with its 95 % interval, as a prediction.

        Args:
            schedule: What it is of.
            estimate: Relative L2 error of the final sample, at least 0, as its planner estimates.
            by_guidance: Such estimates at other strengths of guidance, if there are any.
            bytes: The most bytes of cached tensors, see `Prediction`.
            seconds: Seconds of one run, see `Prediction`.
            to_plain: Where `estimate` is of the distance to the exact solution, that of the
                distance to the plain run.
        """
        how = estimator_of(schedule) if to_plain is None else "exact"
        error = self._expected(how, estimate)
        reach = math.exp(_WIDTH * self._spread(_LINES[how]))
        others = {at: self._expected(how, value) for at, value in (by_guidance or {}).items()}
        return Prediction(
            error=error,
            low=error / reach,
            high=error * reach,
            bytes=bytes,
            seconds=seconds,
            by_guidance=others or None,
            exact=None if to_plain is None else self._distances(error, to_plain),
        )

    def _distances(self, error: float, to_plain: float) -> Distances:
        """Return all distances, given those of a schedule that aims at the exact solution."""
        assert self._exact is not None
        return Distances(
            toward="exact", to_plain=to_plain, to_exact=error, plain_to_exact=self._exact
        )

    def _expected(self, how: Estimator, estimate: float) -> float:
        if not estimate:
            return 0.0
        line, own = _LINES[how], math.exp(log_factor(self._outcomes, how))
        steps = min(max(self._evaluations, _STEPS[0]), _STEPS[1])
        factor = line.offset + line.noisy * self._noisy + line.of_steps * math.log(steps)
        factor += (line.slope - 1.0) * math.log(estimate)
        return estimate * min(max(math.exp(factor), _FACTOR[0]), _FACTOR[1]) * own

    def _spread(self, line: _Line) -> float:
        of_samples = _OF_SAMPLES / math.sqrt(self._samples)
        known = self._explained >= LEAST_EXPLAINED
        spread = line.spread if known else _UNEXPLAINED * line.spread
        return math.hypot(spread, of_samples, _TRANSFERRED * self._transferred)


def explained_share(calibration: Calibration) -> float:
    """Return the share of the outputs' changes that the denoiser's gain explains, 0 to 1.

    It is the mean over evaluations and passes, by the weights of the passes; 1 if not known. The
    first two evaluations, where no drift can be measured, count as explained.

    Args:
        calibration: What was measured.
    """
    dynamics = calibration.dynamics
    if dynamics is None or not dynamics.measured:
        return 1.0
    return float(np.average(dynamics.r_squared(), weights=np.abs(dynamics.response.weights)))
