"""How much an error of one site's output moves the denoiser's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.checks import check_counts, check_sums, whole
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array, Indices
from smoothcache_core.numerics.reproducible_sum import joined


@dataclass(frozen=True, kw_only=True, eq=False)
class Influence:
    """Influence of sites: change of the guided output per change of the site's output.

    Both changes are root mean squares over entries; the site's change is that from its previous
    output to its present one.

    Attributes:
        totals: Sums of what was measured, (3, sites, E), exact parts.
        counts: How often it was measured, (sites, E).

    Raises:
        CalibrationError: The arrays do not go together, or have numbers that they cannot have.
    """

    totals: Array
    counts: Indices

    def __post_init__(self) -> None:
        shape = self.totals.shape[1:]
        if len(shape) != 2:
            raise CalibrationError(
                f"'influence.totals' is (3, sites, evaluations), got {self.totals.shape}"
            )
        check_sums("influence.totals", self.totals, shape)
        check_counts("influence.counts", self.counts, shape, self.totals)

    def values(self, sites: Sequence[Site]) -> Array:
        """Return the influence of every site at every evaluation, (sites, E).

        What was not measured is interpolated geometrically: over evaluations, then over blocks of a
        kind.
        """
        known = np.maximum(joined(self.totals), 1e-12) / np.maximum(self.counts, 1)
        measured = self.counts > 0
        logs = np.zeros(self.counts.shape)
        places = np.arange(self.counts.shape[1])
        rows = [index for index, row in enumerate(measured) if row.any()]
        for index in rows:
            where = np.flatnonzero(measured[index])
            logs[index] = np.interp(places, where, np.log(known[index, where]))
        for kind in {site.kind for site in sites}:
            _fill_blocks(logs, sites, kind, rows)
        return np.exp(logs)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Return the sums of all parts, the same in any order."""
        return cls(
            totals=np.sum([part.totals for part in parts], axis=0),
            counts=np.sum([part.counts for part in parts], axis=0),
        )

    def arrays(self) -> dict[str, Array]:
        """Return everything as arrays, for a file."""
        counts = self.counts.astype(np.float64)
        return {"influence.totals": self.totals, "influence.counts": counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self | None:
        """Return what `arrays` gave, None if it is not there."""
        if "influence.totals" not in arrays:
            return None
        counts = whole("influence.counts", arrays["influence.counts"])
        return cls(totals=arrays["influence.totals"], counts=counts)


def _fill_blocks(logs: Array, sites: Sequence[Site], kind: str, measured: Sequence[int]) -> None:
    """Interpolate over the sites of a kind, which may lie in several lists of blocks."""
    members = [index for index, site in enumerate(sites) if site.kind == kind]
    known = [place for place, index in enumerate(members) if index in measured]
    if not known:
        logs[members] = 0.0  # as if the site's error were the output's
        return
    curves = logs[[members[place] for place in known]]
    for evaluation in range(logs.shape[1]):
        places = np.arange(len(members))
        logs[members, evaluation] = np.interp(places, known, curves[:, evaluation])
