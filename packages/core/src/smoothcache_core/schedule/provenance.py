"""Where a schedule comes from, and what is predicted or measured of its error."""

import itertools
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from smoothcache_core.schedule.values import (
    ByStrength,
    Count,
    Flag,
    Integer,
    NonNegative,
    Number,
    Seeds,
    Text,
    Value,
)

Aim = Literal["plain", "exact"]
"""What cached samples shall come near to: the plain run, or the exact solution of its solver."""


Setting = Integer | Number | Text | Flag | None


class Provenance(Value):
    """How a schedule was made.

    Example:
        >>> schedule.source.name, schedule.source.settings["compute"]
        ('whole', 0.5)

    Attributes:
        name: The source that made it: `"smooth"`, `"interval"`, `"planned"` (sites), `"whole"`
            (whole evaluations), or `"imported"`.
        settings: Settings of that source by name, such as `alpha`, `compute` or `fill`: numbers,
            text, or None.
        seeds: Seeds of the calibration runs it was planned from, ascending; empty if it was not
            planned from any.
    """

    name: Text
    settings: Mapping[Text, Setting] = {}
    seeds: Seeds = ()

    def fitted(self, terms: int, settings: Mapping[str, Setting] | None = None) -> "Provenance":
        """Return the provenance after a fit has replaced the coefficients of the rule.

        Args:
            terms: The most computed outputs that a fitted fill combines.
            settings: Other settings of the fit, in place of those of the rule.
        """
        values = {**self.settings, **(settings or {}), "fill": f"fitted({terms})"}
        return Provenance(name=self.name, settings=values, seeds=self.seeds)


class Distances(Value):
    """Relative L2 distances of final samples where the exact solution is known, at least 0 each.

    Attributes:
        toward: What was aimed at, and what the error of the prediction is the distance to.
        to_plain: From the cached sample to the plain run's.
        to_exact: From the cached sample to the exact solution.
        plain_to_exact: From the plain run's sample to the exact solution.
    """

    toward: Aim
    to_plain: NonNegative
    to_exact: NonNegative
    plain_to_exact: NonNegative

    @property
    def gains(self) -> bool:
        """Whether samples are nearer to the exact solution than the plain run's."""
        return self.to_exact < self.plain_to_exact

    def no_gain(self, end: str) -> str:
        """Return what to tell where samples are no nearer, and what to do, but for another aim.

        Args:
            end: Verb of the samples, such as `"end"` or `"are predicted to end"`.
        """
        return (
            f"aimed at the exact solution, the samples {end} {self.to_exact:.2g} away from it, no "
            f"nearer than the plain run ({self.plain_to_exact:.2g}); allow more compute"
        )


class Prediction(Value):
    """What a schedule promises.

    Attributes:
        error: Relative L2 error of the final sample against the plain run's, or against the exact
            solution where that was aimed at, see `toward`; at least 0.
        low: Lower end of the 95 % confidence interval of `error`, if known.
        high: Upper end of that interval, if known.
        measured: Whether `error` was measured by running the schedule on calibration seeds, rather
            than estimated from sensitivities.
        bytes: The most bytes of cached tensors held between evaluations, if known.
        seconds: Seconds of one run, all evaluations, on the machine of the calibration; if known.
        by_guidance: Error that is expected at other strengths of classifier-free guidance, by the
            strength; None if that is not known.
        exact: What is known of the distances to the exact solution; None where only the plain run
            was looked at.
    """

    error: NonNegative
    low: NonNegative | None = None
    high: NonNegative | None = None
    measured: Flag = False
    bytes: Count | None = None
    seconds: NonNegative | None = None

    by_guidance: ByStrength | None = None
    exact: Distances | None = None

    @property
    def toward(self) -> Aim:
        """What `error` is the distance to."""
        return "plain" if self.exact is None else self.exact.toward

    @property
    def to_plain(self) -> float:
        """Relative L2 distance of the final sample from the plain run's, whatever was aimed at."""
        return self.error if self.exact is None else self.exact.to_plain

    def distance(self, aim: Aim) -> float | None:
        """Return the distance from the plain run or the exact solution; None if nothing is said.

        Args:
            aim: Which of them.
        """
        if aim == "plain":
            return self.to_plain
        return None if self.exact is None else self.exact.to_exact

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        low = self.error if self.low is None else self.low
        high = self.error if self.high is None else self.high
        if not low <= self.error <= high:
            raise ValueError(
                f"low is at most error, and error at most high: {low}, {self.error}, {high}"
            )
        return self

    def __repr__(self) -> str:
        """Say what is promised, in one line."""
        ends = f"{_short(self.low)} to {_short(self.high)}"
        aimed = self.exact
        known = {
            "error": f"{self.error:.3g}" + ("" if self.low is self.high is None else f" ({ends})"),
            "toward": aimed
            and f"{aimed.toward} (to the plain run {aimed.to_plain:.3g}, to the "
            f"exact solution {aimed.to_exact:.3g}, of which the plain run is "
            f"{aimed.plain_to_exact:.3g} away)",
            "measured": "yes" if self.measured else "no",
            "bytes": self.bytes,
            "seconds": None if self.seconds is None else f"{self.seconds:.3g}",
        }
        parts = [f"{name} {value}" for name, value in known.items() if value is not None]
        return f"Prediction({', '.join(parts)})"

    __str__ = __repr__

    def error_at(self, strength: float) -> float | None:
        """Return the error that is expected at a strength of guidance, at least 0.

        Between strengths that are known it is interpolated geometrically.

        Args:
            strength: Strength of classifier-free guidance.

        Returns:
            None where nothing is known, beyond the range of `by_guidance` above all.
        """
        known = sorted((self.by_guidance or {}).items())
        for (low, one), (high, other) in itertools.pairwise(known):
            if low <= strength <= high:
                part = (strength - low) / (high - low)
                return one ** (1 - part) * other**part
        return None


def aim_of(source: Provenance | None, prediction: Prediction | None) -> Aim:
    """Return what a schedule aims at, as its prediction says, or else what made it.

    Args:
        source: How it was made, if that is known.
        prediction: What it promises, if anything.
    """
    if prediction is not None:
        return prediction.toward
    named = None if source is None else source.settings.get("toward")
    return "exact" if named == "exact" else "plain"


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


def described(source: Provenance) -> str:
    """Return how a schedule was made, as short text."""
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in source.settings.items()}
    return f"{source.name}({', '.join(f'{key}={value}' for key, value in values.items())})"
