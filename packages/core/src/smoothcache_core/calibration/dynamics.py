"""What was learned of a run as a whole: the material of a `ReducedRun`, summed over samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from smoothcache_core.calibration.checks import (
    check_counts,
    check_products,
    check_sums,
    check_symmetric,
    whole,
)
from smoothcache_core.calibration.exact_sums import ExactSums
from smoothcache_core.calibration.file import DynamicsHeader
from smoothcache_core.calibration.response import Response
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array, Indices
from smoothcache_core.numerics.reproducible_sum import joined

_KEYS = MappingProxyType(
    {
        "gram": "dynamics.gram",
        "sum_dx2": "dynamics.moved",
        "sum_dxdy": "dynamics.followed",
        "sum_dy2": "dynamics.strayed",
        "effects": "dynamics.effects",
    }
)
"""Keys of the arrays in calibration files, which keep the names of format 2."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dynamics:
    """Statistics of whole runs, as sums that do not depend on the order of merging.

    Attributes:
        gram: Sums over samples of the mean products of the vectors of `ReducedRun`, (3, n, n).
        samples: Number of samples in `gram`.
        response: What the solver makes of the denoiser's outputs.
        response_seed: The seed it was measured with.
        sum_dx2: Sums of |dx|^2 over perturbed runs, (3, E), where dx is the change of the latent.
        sum_dxdy: Sums of dx . dy_p, (3, E, parts), where dy_p is the change of an output.
        sum_dy2: Sums of |dy_p|^2, (3, E, parts).
        effects: Sums over perturbations of |change of the final sample| / |final sample| per root
            mean square of a change of the guided output, (3, E).
        effect_counts: Number of perturbations in `effects`, (E,).
        conditional: Index of the conditional pass, if the adapter says it or guidance's weights do.
        overwritten: Whether the sampler overwrites entries of its latents in every step, as
            inpainting does; everything is of the others.
        exact: What was learned of the exact solution of the same runs; None if that was not asked.
        seconds: Seconds of one evaluation, all passes: the least median of a perturbed run; 0 if
            not known. As a mere timing it is left out of comparisons.

    Raises:
        CalibrationError: The arrays do not go together, or have numbers that they cannot have.
    """

    gram: Array
    samples: int
    response: Response
    response_seed: int
    sum_dx2: Array
    sum_dxdy: Array
    sum_dy2: Array
    effects: Array
    effect_counts: Indices
    conditional: int | None
    seconds: float = 0.0
    overwritten: bool = False
    exact: ExactSums | None = None

    def __post_init__(self) -> None:
        evaluations, parts = self.response.weights.shape
        vectors = evaluations * (1 + parts) + 1
        check_sums("dynamics.gram", self.gram, (vectors, vectors), signed=True)
        check_symmetric("dynamics.gram", joined(self.gram))
        if not self.gram[:, evaluations, evaluations].any():
            raise CalibrationError("'dynamics.gram' has a final sample that is zero")
        self._check_changes((evaluations, parts))
        check_sums("dynamics.effects", self.effects, (evaluations,))
        check_counts("dynamics.effect_counts", self.effect_counts, (evaluations,), self.effects)
        if self.samples < 1:
            raise CalibrationError(f"whole runs are of at least 1 sample, got {self.samples}")
        if self.conditional is not None and not 0 <= self.conditional < parts:
            raise CalibrationError(
                f"the conditional pass is one of {parts}, counted from 0, got {self.conditional}"
            )
        if not 0.0 <= self.seconds < math.inf:
            raise CalibrationError(f"seconds are finite and at least 0, got {self.seconds}")

        if self.exact is not None:
            self.exact.check(joined(self.gram), evaluations, parts)

    def _check_changes(self, shape: tuple[int, int]) -> None:
        check_sums("dynamics.moved", self.sum_dx2, shape[:1])
        check_sums("dynamics.followed", self.sum_dxdy, shape, signed=True)
        check_sums("dynamics.strayed", self.sum_dy2, shape)
        check_products(
            "dynamics.followed",
            joined(self.sum_dxdy),
            joined(self.sum_dx2)[:, None],
            joined(self.sum_dy2),
        )

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return len(self.response.weights)

    @property
    def measured(self) -> bool:
        """Whether the denoiser's gain was measured."""
        return bool(self.effect_counts.any())

    def gain(self) -> Array:
        """Return the denoiser's gain, the change of an output per change of the latent, (E, parts).

        It is the slope of dy over dx by least squares; 0 where it was not measured.
        """
        dxdy = joined(self.sum_dxdy)
        dx2 = np.broadcast_to(joined(self.sum_dx2)[:, None], dxdy.shape)
        return np.divide(dxdy, dx2, out=np.zeros_like(dxdy), where=dx2 > 0)

    def r_squared(self) -> Array:
        """Return the share of the outputs' changes that the gain explains, (E, parts), 0 to 1."""
        product = joined(self.sum_dx2)[:, None] * joined(self.sum_dy2)
        known = joined(self.sum_dxdy) ** 2
        return np.divide(known, product, out=np.ones_like(product), where=product > 0)

    def final_sensitivity(self) -> Array:
        """Return the sensitivity of the final sample to a change of the guided output, (E,).

        It is |change of the final sample| / |final sample| per root mean square of the change.
        Between the evaluations where it was measured, it is interpolated geometrically.
        """
        known = np.flatnonzero(self.effect_counts)
        if not len(known):
            raise CalibrationError(
                "this calibration measured no sensitivity; calibrate with `sensitivity=2`, say"
            )
        values = joined(self.effects)[known] / self.effect_counts[known]
        logs = np.log(np.maximum(values, 1e-12))
        return np.exp(np.interp(np.arange(self.evaluations), known, logs))

    def seconds_at(self, compute: float) -> float | None:
        """Return the seconds of a run that computes a fraction of it, if time were MACs alone."""
        return self.seconds * self.evaluations * compute or None

    # ------------------------------------------------------------------ merging and files

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Return the statistics of all parts, the same in any order.

        Raises:
            CalibrationError: The runs have other evaluations or conditioning passes.
        """
        first = min(parts, key=lambda part: part.response_seed)
        shapes = {part.response.weights.shape for part in parts}
        if len(shapes) > 1:
            raise CalibrationError(
                "cannot merge calibrations: the runs have (evaluations, conditioning passes) "
                f"{sorted(shapes)}"
            )
        sums = (*_KEYS, "effect_counts")
        return cls(
            **{name: np.sum([getattr(part, name) for part in parts], axis=0) for name in sums},
            samples=sum(part.samples for part in parts),
            response=first.response,
            response_seed=first.response_seed,
            conditional=first.conditional,
            overwritten=any(part.overwritten for part in parts),
            exact=ExactSums.merge([part.exact for part in parts]),
            seconds=min((part.seconds for part in parts if part.seconds), default=0.0),
        )

    def arrays(self) -> dict[str, Array]:
        """Return everything as arrays, for a file."""
        found: dict[str, Any] = {key: getattr(self, name) for name, key in _KEYS.items()}
        found |= {} if self.exact is None else self.exact.arrays()
        return found | {
            "dynamics.effect_counts": self.effect_counts.astype(np.float64),
            "dynamics.matrix": self.response.matrix,
            "dynamics.weights": self.response.weights,
        }

    def header(self) -> dict[str, Any]:
        """Return everything that is no array, for a file."""
        return {
            "samples": self.samples,
            "response_seed": self.response_seed,
            "conditional": self.conditional,
            "residual": self.response.residual,
            **({"overwritten": True} if self.overwritten else {}),
        }

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Array], header: DynamicsHeader) -> Self:
        """Return what `arrays` and `header` gave."""
        return cls(
            **{name: arrays[key] for name, key in _KEYS.items()},
            effect_counts=whole("dynamics.effect_counts", arrays["dynamics.effect_counts"]),
            samples=header.samples,
            response=Response(
                matrix=arrays["dynamics.matrix"],
                weights=arrays["dynamics.weights"],
                residual=header.residual,
            ),
            response_seed=header.response_seed,
            conditional=header.conditional,
            seconds=header.seconds,
            overwritten=header.overwritten,
            exact=ExactSums.from_arrays(arrays),
        )
