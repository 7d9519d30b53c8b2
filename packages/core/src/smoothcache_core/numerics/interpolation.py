"""Functions of a run's time, carried from the timesteps where they are known to other ones.

Time is the log-SNR of the latent where the scheduler tells it: on that axis trajectories of
diffusion models are smooth up to their end. What a network gives is a smooth function of time plus
a little of its own at every timestep. Interpolation alone would lose that, and whoever skips from
interpolated outputs would believe that they can be foreseen. So that part is estimated from
differences that a smooth function does not have, and is carried over apart.
"""

import numpy as np

from smoothcache_core.numerics.arrays import Array

_MOST_ORDERS = 6  # of differences; higher ones mix evaluations too far apart to be of one curve


_AT_A_KNOT = 1e-6  # of the distance between two knots; what a time axis loses to rounding is less


# ---------------------------------------------------------------------------- bases


def spline_basis(knots: Array, places: Array) -> Array:
    """Return the cubic spline (not-a-knot) through values at `knots` as weights of these values.

    Args:
        knots: Ascending, (K,), at least 4.
        places: Where to evaluate, (P,); beyond the ends the last cubic goes on.

    Returns:
        Weights, (P, K); exactly those of one knot at that knot.
    """
    from scipy.interpolate import CubicSpline  # a third of torch's time to load

    return _exact_at_knots(CubicSpline(knots, np.eye(len(knots)))(places), knots, places)


def linear_basis(knots: Array, places: Array) -> Array:
    """Return linear interpolation as weights of the values at `knots`.

    Args:
        knots: Ascending, (K,), at least 2.
        places: Where to evaluate, (P,); beyond the ends the last line goes on.

    Returns:
        Weights, (P, K); exactly those of one knot at that knot.
    """
    from scipy.interpolate import make_interp_spline

    basis = make_interp_spline(knots, np.eye(len(knots)), k=1)(places)
    return _exact_at_knots(basis, knots, places)


def _exact_at_knots(basis: Array, knots: Array, places: Array) -> Array:
    """Return `basis`, (P, K), with the weights of one knot where a place is as good as there."""
    nearest = np.abs(places[:, None] - knots).argmin(axis=1)
    step = np.diff(knots, append=np.inf, prepend=-np.inf)
    near = np.abs(places - knots[nearest]) < _AT_A_KNOT * np.minimum(step[:-1], step[1:])[nearest]
    return np.where(near[:, None], np.eye(len(knots))[nearest], basis)


def clamped_linear(knots: Array, values: Array, places: Array) -> Array:
    """Interpolate values (..., K) at `knots` (K,) to `places` (P,) linearly, (..., P).

    Beyond the ends they stay what they are there.
    """
    return values @ linear_basis(knots, np.clip(places, knots[0], knots[-1])).T


# ---------------------------------------------------------------------------- what is not smooth


def roughness(products: Array, knots: Array, longest: int) -> Array:
    """Return the products of the parts of vectors that no smooth function of time has.

    These parts are taken to be independent from one evaluation to the next. A difference of order
    q, with weights of unit length that annihilate polynomials of time up to degree q - 1, leaves
    them as they are; what it leaves of smooth parts falls with q, so the least of all orders is
    taken.

    Args:
        products: Inner products of vectors v[a, p] of evaluations a and b, (E, E, ..., parts,
            parts).
        knots: Times of the evaluations, ascending, (E,).
        longest: Farthest evaluations apart whose products are known.

    Returns:
        The part of `products` at every evaluation, (E, ..., parts, parts); 0 if `longest` is 1.
    """
    count = len(knots)
    least = np.zeros(products.shape[1:])
    size = np.full(products.shape[1:-2], np.inf)
    for order in range(2, min(longest, _MOST_ORDERS, count - 1) + 1):
        rest = _differenced(products, knots, order)
        centres = np.clip(np.round(np.arange(count) - order / 2).astype(int), 0, len(rest) - 1)
        found = rest[centres]
        total = np.trace(found, axis1=-2, axis2=-1)
        better = total < size
        least[better], size[better] = found[better], total[better]
    return np.where((size > 0.0)[..., None, None], least, 0.0)


def _differenced(products: Array, knots: Array, order: int) -> Array:
    """Return the products of differences of one order with themselves, (E - order, ...)."""
    rest = []
    for start in range(len(knots) - order):
        window = slice(start, start + order + 1)
        apart = knots[window, None] - knots[window]
        np.fill_diagonal(apart, 1.0)
        weights = 1.0 / apart.prod(axis=1)
        weights /= np.linalg.norm(weights)
        rest.append(np.einsum("a,ab...,b->...", weights, products[window, window], weights))
    return np.stack(rest)
