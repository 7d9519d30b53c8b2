"""One row of a report: a policy at one setting."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, Strict

from smoothcache_core.numerics.bootstrap import interval_of_mean
from smoothcache_core.schedule.provenance import Aim, Prediction, Provenance, aim_of
from smoothcache_core.schedule.values import Count, Flag, Text


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _from_json(value: object) -> object:
    return float(value) if value in ("inf", "-inf", "nan") and isinstance(value, str) else value


Number = Annotated[
    float,
    Strict(),
    BeforeValidator(_from_json),
    PlainSerializer(_json_number, when_used="json-unless-none"),
]
"""A float that JSON can hold: infinite values and NaN are written as strings."""


class MetricResult(BaseModel):
    """One metric of one policy.

    Attributes:
        mean: Mean over the samples.
        spread: Standard deviation over the samples, 0 for one sample or equal ones.
        samples: The value of every sample, in the order of the seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Number
    spread: Number
    samples: tuple[Number, ...]


class ReportRow(BaseModel):
    """One policy. The keys are those of a benchmark record; what is not known is None.

    Attributes:
        policy: Name of the policy; `"plain"` computes everything, without a cache.
        ours: Whether it is a method of this library's own, not a published one.
        solver: Name of the solver, with its settings.
        evaluations: Denoiser evaluations of one run, per branch.
        compute: MACs over the MACs of the plain run, for the whole denoiser, in (0, 1].
        seconds: Median time of one call of the sampler.
        seconds_each: Seconds of every seed's call, in the order of the seeds.
        speedup: Median over the seeds of plain seconds over this policy's.
        of_limit: `speedup * compute`: 1 if time were MACs alone.
        rel_l2: Mean relative L2 distance of the final latents from those of the plain run, at least
            0.
        rel_l2_spread: Its standard deviation over samples.
        rel_l2_low: Lower end of the 95 % bootstrap interval of `rel_l2`; None for one sample.
        rel_l2_high: Upper end of that interval; None for one sample.
        psnr_db: Mean peak signal-to-noise ratio against the plain samples, in decibels.
        frechet: Frechet distance of features from a reference set, at least 0.
        accuracy: Fraction of samples that a classifier recognises, in [0, 1].
        metrics: Every metric, those named above included, by name.
        summaries: Every summary of all samples, those named above included, by name.
        bytes_peak: Most bytes of cached outputs held after any evaluation.
        computed: Site calls computed, over all timed runs.
        reused: Site calls answered from the cache, over all timed runs.
        recomputed: Planned reuses that had to be computed because nothing usable was cached.
        source: How the schedule was made.
        prediction: What the schedule promised of its error, bytes and seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Text
    ours: Flag
    solver: Text | None = None
    evaluations: Count | None = None
    compute: Number | None = None
    seconds: Number
    seconds_each: tuple[Number, ...]
    speedup: Number
    of_limit: Number | None = None
    rel_l2: Number
    rel_l2_spread: Number
    rel_l2_low: Number | None = None
    rel_l2_high: Number | None = None
    psnr_db: Number | None = None
    frechet: Number | None = None
    accuracy: Number | None = None
    metrics: Mapping[Text, MetricResult] = {}
    summaries: Mapping[Text, Number] = {}
    bytes_peak: Count = 0
    computed: Count | None = None
    reused: Count = 0
    recomputed: Count = 0
    source: Provenance | None = None
    prediction: Prediction | None = None

    @property
    def toward(self) -> Aim:
        """What its samples were to come near to."""
        return aim_of(self.source, self.prediction)

    @property
    def exact_rel_l2(self) -> float | None:
        """Mean relative L2 distance of the final latents from the exact solution, if measured."""
        known = self.metrics.get(EXACT_REL_L2)
        return None if known is None else known.mean

    @property
    def error(self) -> float | None:
        """The measured distance from what it aims at, which `prediction.error` is a promise of.

        None where it aims at the exact solution, and the distance to that was not measured.
        """
        return self.distance(self.toward)

    def distance(self, aim: Aim) -> float | None:
        """Return the mean relative L2 distance from the plain run or the exact solution.

        Args:
            aim: Which of them.

        Returns:
            None if it was not measured.
        """
        return self.rel_l2 if aim == "plain" else self.exact_rel_l2

    def interval(self, aim: Aim) -> tuple[float | None, float | None]:
        """Return the ends of the 95 % bootstrap interval of `distance`; None where not known.

        Args:
            aim: From what the distance is.
        """
        if aim == "plain":
            return self.rel_l2_low, self.rel_l2_high
        known = self.metrics.get(EXACT_REL_L2)
        return (None, None) if known is None else interval_of_mean(known.samples)


EXACT_REL_L2 = "exact_rel_l2"
"""Name of the metric of the distance to the exact solution, as in records of benchmarks."""

PLAIN = "plain"
"""Name of the run that computes everything."""
