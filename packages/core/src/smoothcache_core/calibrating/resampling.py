"""What calibration measured at one set of timesteps, resampled at another.

All this is of functions of time: the plain run's latents and outputs, the outputs of sites, the
denoiser's gain, influences. Products of vectors are resampled as the products of
interpolated vectors, with what is not smooth of them apart; see `numerics/interpolation.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.calibration.quantised import quantised
from smoothcache_core.calibration.response import Response
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.interpolation import (
    clamped_linear,
    linear_basis,
    roughness,
    spline_basis,
)
from smoothcache_core.numerics.reproducible_sum import cut, joined

_HUGE = 1e9
"""Stands for an infinite ratio, which interpolation would turn into NaN. Errors times it are far
above `quantised.LARGEST`, from which they count as infinite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Times:
    """Ascending times of two sets of evaluations, (E,) each."""

    old: Array
    new: Array


# ---------------------------------------------------------------------------- the run as a whole


def resampled_dynamics(dynamics: Dynamics, times: Times, response: Response, seed: int) -> Dynamics:
    """Return the statistics of whole runs at the new times; the exact solution is not carried over.

    Args:
        dynamics: Those at the old times.
        times: The old and the new grid of solver times, (E,) each, ascending.
        response: That of the solver at the new times.
        seed: The seed it was measured with.
    """
    evaluations, parts = response.weights.shape
    gain, r_squared = _gain(dynamics, times)
    effects, counts = np.zeros(evaluations), np.zeros(evaluations, dtype=np.int64)
    if dynamics.measured:
        effects, counts = _effects(dynamics, times, response), np.ones_like(counts)
    dy2 = np.divide(gain**2, r_squared, out=np.zeros_like(gain), where=r_squared > 0)
    return replace(
        dynamics,
        gram=cut(_gram(joined(dynamics.gram), times, parts)),
        response=response,
        response_seed=seed,
        sum_dx2=cut(counts.astype(np.float64)),
        sum_dxdy=cut(gain),
        sum_dy2=cut(dy2),
        effects=cut(effects),
        effect_counts=counts,
        exact=None,
    )


def _gram(gram: Array, times: Times, parts: int) -> Array:
    """Resample the products of latents, final sample and outputs, ordered as in `ReducedRun`."""
    old, new = len(times.old), len(times.new)
    basis = spline_basis(times.old, times.new)
    weights = np.zeros((new * (1 + parts) + 1, old * (1 + parts) + 1))
    weights[:new, :old] = basis
    weights[new, old] = 1.0
    weights[new + 1 :, old + 1 :] = np.kron(np.eye(parts), basis)
    rough = _rough_outputs(gram, times.old, parts)
    smooth = gram - _spread(rough)
    return weights @ smooth @ weights.T + _spread(clamped_linear(times.old, rough, times.new))


def _rough_outputs(gram: Array, times: Array, parts: int) -> Array:
    """Return what is not smooth of the outputs, (parts, parts, E)."""
    count = len(times)
    outputs = gram[count + 1 :, count + 1 :].reshape(parts, count, parts, count)
    return roughness(outputs.transpose(1, 3, 0, 2), times, count - 1).transpose(1, 2, 0)


def _spread(rough: Array) -> Array:
    """Return products (parts, parts, E) of outputs at their places in a Gram matrix."""
    parts, _, count = rough.shape
    gram = np.zeros((count * (1 + parts) + 1,) * 2)
    where = count + 1 + np.arange(count)
    for one in range(parts):
        for other in range(parts):
            gram[where + one * count, where + other * count] = rough[one, other]
    return gram


def _gain(dynamics: Dynamics, times: Times) -> tuple[Array, Array]:
    """Return the gain and its R squared at the new times, (E, parts); 0 and 1 if unknown."""
    known = np.flatnonzero(joined(dynamics.sum_dx2) > 0)
    if len(known) < 2:
        shape = len(times.new), dynamics.response.weights.shape[1]
        return np.zeros(shape), np.ones(shape)
    both = np.stack((dynamics.gain(), dynamics.r_squared()))[:, known]
    gain, r_squared = clamped_linear(times.old[known], both.transpose(0, 2, 1), times.new)
    return gain.T, r_squared.T


def _effects(dynamics: Dynamics, times: Times, response: Response) -> Array:
    """Return the effects on the final sample; they go with the step that an output is used for."""
    steps = np.abs(np.diagonal(dynamics.response.matrix))
    known = np.flatnonzero(steps > 1e-9 * steps.max())
    logs = np.log(dynamics.final_sensitivity()[known] / steps[known])
    per_step = np.exp(clamped_linear(times.old[known], logs, times.new))
    return per_step * np.abs(np.diagonal(response.matrix))


# ---------------------------------------------------------------------------- sites


def resampled_influence(influence: Influence, sites: Sequence[Site], times: Times) -> Influence:
    """Return the influence of every site at the new times."""
    values = np.exp(clamped_linear(times.old, np.log(influence.values(sites)), times.new))
    return Influence(totals=cut(values), counts=np.ones(values.shape, dtype=np.int64))


def resampled_products(products: Array, times: Times) -> Array:
    """Resample the products of sites' outputs, (sites, E, lags + 1).

    Outputs are interpolated between two neighbours. The largest new lag is the one for which no
    more than the old lags is needed; there may be no lag but 0.
    """
    sites, old, lags = products.shape
    longest, new = lags - 1, len(times.new)
    full = _full(products)
    rough = roughness(full[..., None, None], times.old, longest)[..., 0, 0]
    full[np.arange(old), np.arange(old)] -= rough
    basis = linear_basis(times.old, times.new)
    most = _longest(basis, longest)
    between = np.einsum("ia,abs,jb->ijs", basis, full, basis, optimize=True)
    resampled = np.zeros((sites, new, most + 1))
    for lag in range(most + 1):
        later = np.arange(lag, new)
        resampled[:, later, lag] = between[later, later - lag].T
    resampled[:, :, 0] += clamped_linear(times.old, rough.T, times.new)
    return resampled


def _full(products: Array) -> Array:
    """Return a band of products as (E, E, sites), 0 outside the band."""
    sites, evaluations, lags = products.shape
    full = np.zeros((evaluations, evaluations, sites))
    for lag in range(min(lags, evaluations)):
        later = np.arange(lag, evaluations)
        full[later, later - lag] = full[later - lag, later] = products[:, later, lag].T
    return full


def _longest(basis: Array, longest: int) -> int:
    """Return the largest lag between rows of `basis` that reach no farther than `longest`."""
    used = basis != 0.0
    first = np.argmax(used, axis=1)
    last = used.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
    lag = 0
    while lag + 1 < len(basis) and np.all(last[lag + 1 :] - first[: -lag - 1] <= longest):
        lag += 1
    return lag


def resampled_errors(
    calibration: Calibration, products: Array, times: Times
) -> tuple[Array, Array]:
    """Return sums of SmoothCache's errors and of their squares at the new times.

    Measured are relative L1 errors, products tell relative L2 errors. The ratio of the two changes
    little, so that is what is interpolated, at the old lag that spans most nearly the same time.

    Args:
        calibration: What was measured, with products.
        products: Mean products at the new times, see `resampled_products`.
        times: The old and the new grid of solver times, (E,) each, ascending.

    Returns:
        Totals and squares, (sites, branches, lags, E).
    """
    assert calibration.products is not None
    samples, mean = calibration.samples, calibration.mean()
    known = _relative(joined(calibration.products) / samples)[:, None]
    ratios = _ratio(mean, known, unknown=1.0)
    spreads = _ratio(calibration.squares / samples, mean**2, unknown=1.0)
    errors = np.repeat(_relative(products)[:, None], mean.shape[1], axis=1)
    squares = np.full_like(errors, np.nan)
    for lag in range(1, errors.shape[2] + 1):
        old = round(lag * len(times.old) / len(times.new))
        old = int(np.clip(old, 1, min(calibration.max_lag, len(times.old) - 2)))
        knots, places = times.old[:-old], times.new[:-lag]
        where = slice(None), slice(None), lag - 1, slice(len(places))
        errors[where] *= clamped_linear(knots, ratios[:, :, old - 1, : len(knots)], places)
        spread = clamped_linear(knots, spreads[:, :, old - 1, : len(knots)], places)
        squares[where] = errors[where] ** 2 * np.maximum(spread, 1.0)
    return quantised(errors) * samples, quantised(squares) * samples


def _relative(products: Array) -> Array:
    """Return relative L2 errors (sites, lags, E), placed as in `Calibration.totals`."""
    sites, evaluations, lags = products.shape
    errors = np.full((sites, lags - 1, evaluations), np.nan)
    own = products[:, :, 0]
    for lag in range(1, min(lags, evaluations)):
        before, after = own[:, :-lag], own[:, lag:]
        changed = np.sqrt(np.maximum(before + after - 2 * products[:, lag:, lag], 0.0))
        errors[:, lag - 1, :-lag] = _ratio(changed, np.sqrt(after), unknown=0.0)
    return errors


def _ratio(above: Array, below: Array, *, unknown: float) -> Array:
    """Divide; `unknown` for 0/0, and what is infinite becomes large enough to stay out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    zero = (above == 0.0) & (below == 0.0)
    return np.where(zero | (np.isinf(above) & np.isinf(below)), unknown, np.minimum(ratio, _HUGE))
