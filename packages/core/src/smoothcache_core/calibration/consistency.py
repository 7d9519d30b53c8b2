"""What the parts of a calibration must be together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.checks import check_gram, check_products, check_shape, check_sums
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.calibration.quantised import GRID, LARGEST, MOST_SAMPLES
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array, Rows
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint


class Parts(Protocol):
    """The parts of a `Calibration`, which is what is checked here."""

    @property
    def sites(self) -> Sequence[Site]:
        """The sites, one dimension of the errors."""
        ...

    @property
    def branches(self) -> Sequence[str]:
        """Names of the conditioning passes."""
        ...

    @property
    def totals(self) -> Array:
        """Sums of errors, (sites, branches, lags, evaluations)."""
        ...

    @property
    def squares(self) -> Array:
        """Sums of their squares, same shape."""
        ...

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds of the runs."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        ...

    @property
    def max_lag(self) -> int:
        """The largest lag measured."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What was measured."""
        ...

    @property
    def cost(self) -> Cost:
        """MACs and bytes of one evaluation."""
        ...

    @property
    def products(self) -> Array | None:
        """Inner products of outputs, if they are known."""
        ...

    @property
    def dynamics(self) -> Dynamics | None:
        """What was learned of whole runs, if anything."""
        ...

    @property
    def influence(self) -> Influence | None:
        """What errors of sites do, if it is known."""
        ...


def check_calibration(found: Parts) -> None:
    """Refuse a calibration whose parts contradict one another, or are what they cannot be.

    Raises:
        CalibrationError: They do.
    """
    _check_names(found)
    _check_errors(found)
    _check_fingerprint(found)
    _check_products(found)
    _check_whole_runs(found)


def _check_names(found: Parts) -> None:
    """Refuse what occurs twice, and numbers of samples that are none of these seeds."""
    paths = [site.path for site in found.sites]
    for name, values in (("sites", paths), ("branches", found.branches), ("seeds", found.seeds)):
        if len(set(values)) < len(values):
            raise CalibrationError(f"{name} occur twice: {list(values)[:20]}")
    if found.samples < 1:
        raise CalibrationError(f"a calibration has at least 1 sample, got {found.samples}")
    if not len(found.seeds) <= found.samples <= MOST_SAMPLES or not found.seeds:
        raise CalibrationError(
            f"{len(found.seeds)} seeds have {found.samples} samples, but each has at least 1, and "
            f"all have at most {MOST_SAMPLES}"
        )
    if list(found.seeds) != sorted(found.seeds):
        raise CalibrationError(f"seeds are in ascending order, got {list(found.seeds)[:20]}")


def _check_errors(found: Parts) -> None:
    """Refuse errors of the wrong shape, and what cannot be sums of errors and of their squares."""
    expected = (len(found.sites), len(found.branches))
    shape = found.totals.shape
    if len(shape) != 4 or shape[:2] != expected or found.squares.shape != shape:
        raise CalibrationError(
            "totals and squares are (sites, branches, lags, evaluations), here "
            f"({expected[0]}, {expected[1]}, ...), got {shape} and {found.squares.shape}"
        )
    if not shape[3]:
        raise CalibrationError("a run has at least 1 evaluation, these have 0")
    for name, sums, most in (
        ("totals", found.totals, LARGEST),
        ("squares", found.squares, LARGEST**2),
    ):
        check_shape(name, sums, shape)
        _check_on_grid(name, sums, most * found.samples)
    unknown = np.isnan(found.totals)
    if (unknown != np.isnan(found.squares)).any() or not _is_measured(~unknown):
        raise CalibrationError(
            "errors are NaN where they must be known, or known where they cannot"
        )
    if (np.isinf(found.totals) & ~np.isinf(found.squares)).any():
        raise CalibrationError("'squares' is finite where an error is infinite")
    _check_spread(found)


def _check_on_grid(name: str, sums: Array, most: float) -> None:
    with np.errstate(invalid="ignore"):
        negative = sums < 0.0
        finite = np.isfinite(sums)
        off = finite & ((sums > most) | (sums * GRID != np.round(sums * GRID)))
    for wrong, why in ((negative, "negative"), (off, "above the largest, or not rounded")):
        if wrong.any():
            raise CalibrationError(
                f"{int(wrong.sum())} of {sums.size} numbers in {name!r} are {why}"
            )


def _is_measured(known: Rows) -> bool:
    """Return whether errors are known just where two outputs of one branch can be compared.

    Args:
        known: (sites, branches, lags, evaluations).
    """
    sites, branches, lags, evaluations = known.shape
    present = np.zeros((sites, branches, evaluations), dtype=np.bool_)
    expected = np.zeros_like(known)
    for lag in range(1, min(lags, evaluations - 1) + 1):
        pairs = known[:, :, lag - 1, : evaluations - lag]
        present[:, :, : evaluations - lag] |= pairs
        present[:, :, lag:] |= pairs
    for lag in range(1, min(lags, evaluations - 1) + 1):
        both = present[:, :, : evaluations - lag] & present[:, :, lag:]
        expected[:, :, lag - 1, : evaluations - lag] = both
    some = known.any() or not (sites and branches and lags and evaluations > 1)
    return bool(some and (known == expected).all())


def _check_spread(found: Parts) -> None:
    """Refuse squares that are smaller than the mean allows (Jensen), but for rounding."""
    finite = np.isfinite(found.squares)
    totals, squares = found.totals[finite], found.squares[finite]
    rounding = found.samples / GRID
    if (totals**2 > found.samples * (squares + rounding) * (1.0 + 1e-9)).any():
        raise CalibrationError("'squares' is too small for the errors in 'totals'")


def _check_fingerprint(found: Parts) -> None:
    known = found.fingerprint.evaluations
    if known is not None and known != found.evaluations:
        raise CalibrationError(
            f"its arrays are of {found.evaluations} evaluations, its fingerprint says {known}"
        )
    sites = [(site.path, site.kind, site.block) for site in found.sites]
    costs = [(cost.path, cost.kind, cost.block) for cost in found.cost.sites]
    if sites != costs:
        raise CalibrationError("the sites of its cost are not its sites, one by one")


def _check_products(found: Parts) -> None:
    if found.products is None:
        return
    shape = (len(found.sites), found.evaluations, found.max_lag + 1)
    check_sums("products", found.products, shape, signed=True)
    products = joined(found.products)
    own = products[:, :, 0]
    if (own < 0.0).any():
        raise CalibrationError("'products' has squares below 0, which it cannot have")
    for lag in range(1, found.max_lag + 1):
        if products[:, :lag, lag].any():
            raise CalibrationError("'products' has products with outputs before the first")
        measured = found.fingerprint.transferred_from is None  # else they are estimates
        if measured and lag < found.evaluations:
            check_products("products", products[:, lag:, lag], own[:, lag:], own[:, :-lag])


def _check_whole_runs(found: Parts) -> None:
    """Refuse statistics of whole runs and of influence that are of other runs, sites or seeds."""
    dynamics, influence, runs = found.dynamics, found.influence, len(found.seeds)
    if dynamics is not None:
        if (dynamics.evaluations, dynamics.samples) != (found.evaluations, found.samples):
            raise CalibrationError(
                f"whole runs are {dynamics.evaluations} evaluations of {dynamics.samples} samples, "
                f"sites {found.evaluations} of {found.samples}"
            )
        if found.fingerprint.transferred_from is None:  # else what is not smooth is an estimate
            check_gram("dynamics.gram", joined(dynamics.gram))
        if dynamics.effect_counts.max() > runs:
            raise CalibrationError(f"effects were measured more often than in {runs} runs")
    if influence is not None:
        if influence.counts.shape != (len(found.sites), found.evaluations):
            raise CalibrationError(
                f"'influence.counts' has shape {influence.counts.shape}, not "
                f"{(len(found.sites), found.evaluations)}"
            )
        if influence.counts.size and influence.counts.max() > runs:
            raise CalibrationError(f"influence was measured more often than in {runs} runs")
