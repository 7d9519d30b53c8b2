"""What is learned of whole runs, and of the sites in them, while calibrating."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from smoothcache_core.adapters.guidance import conditional_part
from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.calibrating.exact_reference import check_has_exact
from smoothcache_core.calibrating.run_sensitivity import exact_sums, measure_dynamics
from smoothcache_core.calibrating.site_sensitivity import measure_influence
from smoothcache_core.calibrating.solver_response import (
    OtherFinal,
    conditional_half,
    responding,
)
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.response import Response
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sampling.exact_solution import exact_solution, exact_trajectory
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.fingerprint import Fingerprint

logger = logging.getLogger(__name__)

PROBES = 6
"""Evaluations at which a run is perturbed to measure sensitivity. Each continues the run to its
end, half a run on average, so six take as long as three runs; in between, sensitivities are
interpolated."""


_GUIDED_TOWARDS = 1.05
"""Weight of a pass from which on guidance goes towards it: unconditional passes have 0 or less."""


_NO_FINAL = "`run` returns no final latent, so what the last evaluation does to it is not known"


class RunStatistics:
    """Adds what is learned of whole runs to the calibrations of single runs.

    Args:
        sampler: How a run is made.
        chosen: Seeds to measure sensitivities with.
        exact: Whether the exact solution of every run is measured too.
    """

    def __init__(self, sampler: Sampler, chosen: Collection[int], *, exact: bool = False) -> None:
        self._sampler = sampler
        self._chosen = chosen
        self._exact = exact
        self._told: set[str] = set()

    def add(
        self,
        part: Calibration,
        plain: Trajectory | CalibrationError,
        other: Calibration | None = None,
    ) -> Calibration:
        """Measure the run that `part` was recorded in; say why if that is not possible.

        Args:
            part: What its sites did.
            plain: The run as a whole.
            other: What was measured of the same run with other sites, which need not be measured
                again.

        Raises:
            CalibrationError: The exact solution is asked for, and cannot be told.
        """
        try:
            return self._measure(part, plain, other)
        except CalibrationError as error:
            if self._exact:
                raise
            return replace(part, remark=str(error))

    def _measure(
        self,
        part: Calibration,
        plain: Trajectory | CalibrationError,
        other: Calibration | None,
    ) -> Calibration:
        if isinstance(plain, CalibrationError):
            raise plain
        places = places_of(plain.evaluations) if plain.seed in self._chosen else []
        has_final = plain.final is not None
        plain, response = responding(self._sampler, plain)
        if other is None or other.dynamics is None:
            dynamics = self._dynamics(part, plain, response, places)
        else:
            dynamics = other.dynamics
        assert part.products is not None
        products = joined(part.products) / part.samples
        influence = measure_influence(self._sampler, plain, response, part.sites, products, places)
        remark = ""
        if plain.final is None:
            remark = str(OtherFinal()) if has_final else _NO_FINAL
        return replace(
            part,
            fingerprint=self._with_part(part.fingerprint, plain.part),
            dynamics=dynamics,
            influence=influence,
            remark=remark,
        )

    def _dynamics(
        self, part: Calibration, plain: Trajectory, response: Response, places: Sequence[int]
    ) -> Dynamics:
        """Return what is learned of the run as a whole."""
        branches = tuple(dict.fromkeys(call.branch for call in plain.calls))
        conditional = conditional_part(self._sampler.adapter, branches)
        dynamics = measure_dynamics(
            self._sampler,
            plain,
            self._sampler.samples,
            probes=places,
            conditional=conditional if plain.parts > 1 else None,
            response=response,
        )
        if dynamics.overwritten:
            self._tell("the sampler overwrites a part of its latents; all errors are of the rest")
        if conditional is None and plain.parts == 2 and len(branches) == 1:
            told = conditional_half(dynamics.response.weights)
            dynamics = replace(dynamics, conditional=told)
        dynamics = self._with_sure_conditional(dynamics, part.fingerprint.strength)
        return self._with_exact(dynamics, plain) if self._exact else dynamics

    def _with_exact(self, dynamics: Dynamics, plain: Trajectory) -> Dynamics:
        """Return it with what the exact solution of the run is; how exact it is, is told once.

        Raises:
            CalibrationError: The solver adds noise, or finer runs do not tell.
        """
        check_has_exact(plain, dynamics.response)
        found = exact_solution(self._sampler, plain)
        asked = exact_trajectory(self._sampler, plain, found)
        self._tell(
            f"the plain run is {found.distance:.2g} away from the exact solution (relative L2), "
            f"which is known to {found.doubt:.1g}",
            "exact",
        )
        sums = exact_sums(plain, found, asked, self._sampler.samples)
        return replace(dynamics, exact=sums)

    def _with_sure_conditional(self, dynamics: Dynamics, strength: float | None) -> Dynamics:
        """Return it without a conditional pass where passes are not classifier-free guidance's.

        Other kinds of guidance have other passes in the batch: perturbed ones, say. Then guidance
        is announced to be off, or goes towards the half that is to be the unconditional one.
        """
        given, weights = dynamics.conditional, dynamics.response.weights.mean(axis=0)
        if given is None or len(weights) != 2:
            return dynamics
        is_off = strength is not None and strength <= 1.0 and weights.max() > _GUIDED_TOWARDS
        if not is_off and weights[1 - given] <= _GUIDED_TOWARDS:
            return dynamics
        self._tell(
            "the passes of this run are not those of classifier-free guidance: their weights are "
            f"{weights[given]:.3g} and {weights[1 - given]:.3g}; none is skipped by itself"
        )
        return replace(dynamics, conditional=None)

    def _tell(self, message: str, what: str = "") -> None:
        """Tell something once; of what differs from run to run, what it is says so."""
        if (what or message) not in self._told:
            self._told.add(what or message)
            logger.info(message)

    def _with_part(self, known: Fingerprint, part: LatentPart | None) -> Fingerprint:
        """Return a fingerprint that says what of the latent is denoised; it is told once."""
        if part is None:
            return known
        shape = (None, *(known.latent_shape or ()))
        self._tell(f"of the latent argument, {shape}, only {part} is denoised")
        return known.changed(latent_part=part)


def places_of(evaluations: int, count: int = PROBES) -> list[int]:
    """Return up to `count` evaluations, evenly spread over those that have a predecessor."""
    if evaluations < 2:
        return []
    places = np.linspace(1, evaluations - 1, min(count, evaluations - 1))
    return sorted({round(place) for place in places.tolist()})
