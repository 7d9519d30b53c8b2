"""What schedules of a calibration really did: errors that were foretold, beside those that came."""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.values import Integer, Number, Value

Estimator = Literal["whole", "filled", "reused", "exact"]
"""How an error is estimated: on a reduced run, or as a sum of effects of sites, which are filled by
coefficients or reused; or, for the distance to the exact solution, on a reduced run."""


Error = Annotated[Number, Field(gt=0)]
"""A relative L2 error of the final sample."""


class Outcome(Value):
    """One schedule that was planned and run.

    Attributes:
        estimator: How its error was estimated.
        compute: Its compute fraction, 0 to 1.
        predicted: The error that was foretold, by the constants of the library alone.
        measured: The error that it really made, mean over the samples of a run.
        seed: Seed of the run.
    """

    estimator: Estimator
    compute: Annotated[Number, Field(ge=0, le=1)]
    predicted: Error
    measured: Error
    seed: Integer


def ordered(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return outcomes in an order that depends on nothing else, each once.

    Args:
        outcomes: In any order.
    """
    return tuple(sorted(dict.fromkeys(outcomes), key=lambda each: tuple(dict(each).values())))


def estimator_of(schedule: Schedule) -> Estimator:
    """Return how the error of a planned schedule is estimated.

    Args:
        schedule: Planned, or of a published rule.
    """
    if schedule.source.name == "whole":
        return "whole"
    return "filled" if schedule.fills else "reused"


WORTH = 0.5
"""How many outcomes the constants of the library are worth. Errors of two plans of one estimator
deviate together: the mean of two predicts others better than the constants do in all three
modalities (`python -m tools.bench promises`), for weights from 0.6 to 1; this gives 0.8 to two."""


def log_factor(outcomes: Sequence[Outcome], estimator: Estimator) -> float:
    """Return the logarithm of what predictions are to be multiplied by, 0 if nothing is known.

    It is the mean logarithm of measured over predicted errors, drawn towards 0 as `WORTH` says.

    Args:
        outcomes: What is known.
        estimator: Those of which estimator count.
    """
    logs = [
        math.log(each.measured / each.predicted) for each in outcomes if each.estimator == estimator
    ]
    return sum(logs) / (len(logs) + WORTH)
