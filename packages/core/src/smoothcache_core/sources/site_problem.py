"""The planning problem of sites: predicted effects of fills, prices, and the schedule of some rows.

The effect of filling site s at evaluation i is predicted as u[i] w[s, i] r, with r the root mean
square that the fill leaves of the site's output (from calibrated inner products), w the site's
influence on the denoiser's output, and u the effect of that on the final sample.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, residual, rounded
from smoothcache_core.numerics.arrays import Array, Indices, Rows
from smoothcache_core.optimize.programme import at_most_rows, minimax, within_budget
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.calibrated import schedule_of
from smoothcache_core.sources.kind import check_sites
from smoothcache_core.sources.prediction import (
    SMALLEST,
    Filled,
    grams_of,
    mean_products,
    sensitivity,
    with_prediction,
)

Per = Literal["site", "kind", "evaluation"]


Objective = Literal["sum", "squares", "minimax", "relative"]


class Problem:
    """One planning problem: effects of groups of sites, and their prices.

    Args:
        calibration: Measured with sensitivities.
        rule: How skipped outputs are made.
        per: What shares a row.
        objective: What is minimised.
        limits: What must be kept to.
        prices: Price of computing once, by kind or path; MACs if not given.

    Raises:
        ScheduleError: The calibration lacks what is needed, or a limit or a price is wrong.
    """

    def __init__(
        self,
        calibration: Calibration,
        rule: FillRule,
        per: Per,
        objective: Objective,
        limits: Limits,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        check_sites(calibration)
        self._calibration = calibration
        self._rule = rule
        self._per: Per = per
        self._objective: Objective = objective
        self._limits = limits
        self._lags = _lags(calibration, rule, limits)
        self._stages = _stages(calibration)
        self._products = mean_products(calibration)
        self._groups = _groups(calibration.sites, per)
        self._effects = self._site_effects()
        self._pinned = _pinned(calibration, limits)
        self._site_prices = _site_prices(calibration, prices)
        self._prices = np.array([self._site_prices[of].sum() for of in self._groups.values()])
        self._by_macs = prices is None

    # ------------------------------------------------------------------ effects

    def _site_effects(self) -> Array:
        """Return the effect of every fill, (sites, E, A, A + 2), see `programme.py`."""
        sites, evaluations, _ = self._products.shape
        lags = self._lags
        effects = np.full((sites, evaluations, lags, lags + 2), np.inf)
        for lag in range(1, lags + 1):
            for gap in range(lags + 2):
                where = self._reachable(lag, gap)
                far = where - lag - gap < self._stages[where]
                for places, history in ((where[~far], gap), (where[far], 0)):
                    if len(places):
                        left = self._residuals(places, lag, history)
                        effects[:, places, lag - 1, gap] = left
        scale = self._scale()[:, :, None, None]
        with np.errstate(invalid="ignore"):
            effects = effects * scale
        return effects**2 if self._objective == "squares" else effects

    def _scale(self) -> Array:
        """Return what a site's residual is multiplied by, (sites, E)."""
        if self._objective == "relative":
            return 1.0 / np.sqrt(np.maximum(self._products[:, :, 0], SMALLEST))
        return sensitivity(self._calibration)

    def _reachable(self, lag: int, gap: int) -> Indices:
        evaluations = self._products.shape[1]
        if gap == 0:
            return np.array([lag]) if lag < evaluations else np.array([], dtype=np.int64)
        return np.arange(lag + gap, evaluations)

    def _residuals(self, where: Indices, lag: int, gap: int) -> Array:
        """Return what fills leave, (sites, evaluations of `where`)."""
        history = self._history(lag, gap)
        sites = np.arange(len(self._products))[:, None]
        grams = grams_of(self._products, sites, where, np.array([0, *history]))
        places = np.broadcast_to([0.0, *(-float(h) for h in history)], (len(history) + 1,))
        return residual(grams, self._rule.coefficients(grams, places))

    def _history(self, lag: int, gap: int) -> list[int]:
        """Return the lags of the outputs a fill is made of, as far as they were calibrated."""
        longest = self._products.shape[2] - 1
        known = [lag, lag + gap] if gap else [lag]
        return [h for h in known[: self._rule.terms] if h <= longest]

    # ------------------------------------------------------------------ solving

    def budget(self, compute: float) -> float:
        """Return what the sites may spend if the whole run computes a fraction of its MACs.

        With prices of their own it is that fraction of what all sites would spend.
        """
        evaluations, whole = self._calibration.evaluations, self._site_prices.sum()
        if not self._by_macs:
            return float(compute * whole * evaluations)
        total = self._calibration.cost.total
        return float(compute * total * evaluations - (total - whole) * evaluations)

    def solve(self, budget: float) -> Rows:
        """Return the rows of the groups, (groups, E), True where computed.

        Args:
            budget: The most that may be spent, in the unit of the prices; see `budget`.

        Raises:
            ScheduleError: The budget is out of reach.
        """
        members = list(self._groups.values())
        effects = np.stack([self._effects[indices].sum(axis=0) for indices in members])
        pinned = self._pinned
        if self._limits.max_bytes is not None:
            pinned = self._within_memory(pinned, self._limits.max_bytes)
        if self._objective == "minimax":
            return minimax(effects, self._prices, pinned, budget)
        if self._limits.max_rows is not None:
            return at_most_rows(effects, self._prices, pinned, budget, self._limits.max_rows)
        return within_budget(effects, self._prices, pinned, budget)

    def _within_memory(self, pinned: Rows, cap: int) -> Rows:
        """Compute always, besides `pinned`, those groups whose cached outputs save least."""
        cost = self._calibration.cost
        sizes = np.array(
            [
                sum(cost.sites[i].bytes for i in indices) * self._rule.terms
                for indices in self._groups.values()
            ]
        )
        order = np.argsort(-self._prices / np.maximum(sizes, 1), kind="stable")
        kept = order[np.cumsum(sizes[order]) <= cap]
        rows = np.broadcast_to(pinned, (len(sizes), len(pinned))).copy()
        rows[np.setdiff1d(np.arange(len(sizes)), kept)] = True
        return rows

    # ------------------------------------------------------------------ the result

    def schedule(self, rows: Rows, compute: float) -> Schedule:
        """Return the schedule of `rows`, (groups, E), with fills and a prediction."""
        calibration = self._calibration
        keys = list(self._groups)
        fills = self._fills(rows)
        settings = {
            "compute": compute,
            "fill": self._rule.name,
            "per": self._per,
            "objective": self._objective,
            "max_lag": self._lags,
        }
        if self._per == "evaluation":
            named = {kind: rows[0] for kind in calibration.kinds}
        else:
            named = dict(zip(keys, rows, strict=True))
        schedule = schedule_of(
            calibration,
            {key: tuple(int(v) for v in row) for key, row in named.items()},
            Provenance(name="planned", settings=settings, seeds=calibration.seeds),
            fills,
        )
        return with_prediction(calibration, schedule)

    def _fills(self, rows: Rows) -> dict[str, Fill]:
        """Return the coefficients of all sites that have some, by their paths."""
        filled = Filled()
        for indices, row in zip(self._groups.values(), rows, strict=True):
            for evaluation, history in self._histories(row):
                for index in indices:
                    filled.add(index, evaluation, history)
        terms: dict[int, dict[int, tuple[float, ...]]] = {}
        for sites, evaluations, back in filled.by_length():
            grams = grams_of(self._products, sites, evaluations, back)
            found = self._rule.coefficients(grams, -back.astype(np.float64))
            for index, evaluation, values in zip(sites, evaluations, found.tolist(), strict=True):
                if values != [1.0]:
                    terms.setdefault(int(index), {})[int(evaluation)] = rounded(values)
        paths = [site.path for site in self._calibration.sites]
        return {paths[i]: Fill(terms=dict(sorted(terms[i].items()))) for i in sorted(terms)}

    def _histories(self, row: Rows) -> Iterator[tuple[int, list[int]]]:
        """Yield what is filled, and the lags of its terms: as were calibrated, at most 3."""
        for evaluation in np.flatnonzero(~row).tolist():
            done = np.flatnonzero(row[:evaluation])[::-1][: self._rule.terms]
            history = [evaluation - int(e) for e in done if e >= self._stages[evaluation]]
            yield evaluation, [h for h in history if h < self._products.shape[2]]


def _lags(calibration: Calibration, rule: FillRule, limits: Limits) -> int:
    """Return the most evaluations to fill in a row."""
    most = calibration.max_lag if rule.terms == 1 else max(calibration.max_lag // 2, 1)
    if limits.max_lag is None:
        return min(most, calibration.evaluations - 1)
    if limits.max_lag > calibration.max_lag:
        raise ScheduleError(
            f"max_lag must be from 1 to {calibration.max_lag}, the largest measured, got "
            f"{limits.max_lag}"
        )
    return min(limits.max_lag, calibration.evaluations - 1)


def _groups(sites: Sequence[Site], per: Per) -> dict[str, list[int]]:
    """Return the indices of the sites that share a row, by its key."""
    groups: dict[str, list[int]] = {}
    for index, site in enumerate(sites):
        key = {"site": site.path, "kind": site.kind, "evaluation": ""}[per]
        groups.setdefault(key, []).append(index)
    return groups


def _pinned(calibration: Calibration, limits: Limits) -> Rows:
    """Return what must be computed: by the limits, and where another denoiser takes over."""
    evaluations = calibration.evaluations
    limits.check(evaluations)
    pinned = np.zeros(evaluations, dtype=np.bool_)
    pinned[[*limits.computed, *calibration.fingerprint.handovers]] = True
    return pinned


def _stages(calibration: Calibration) -> Indices:
    """Return for every evaluation the first that its denoiser made in this turn, (E,)."""
    first = np.zeros(calibration.evaluations, dtype=np.int64)
    for handover in calibration.fingerprint.handovers:
        first[handover:] = handover
    return first


def _site_prices(calibration: Calibration, prices: Mapping[str, float] | None) -> Array:
    """Return the price of computing every site once, (sites,): its MACs if none are given."""
    if prices is not None:
        return _given_prices(prices, calibration.sites)
    free = [site.path for site in calibration.cost.sites if site.macs <= 0]
    if free:
        raise ScheduleError(f"{free[0]!r} costs no MACs; give prices, seconds for example")
    return np.array([float(site.macs) for site in calibration.cost.sites])


def _given_prices(prices: Mapping[str, float], sites: Sequence[Site]) -> Array:
    unknown = set(prices) - {key for site in sites for key in site.row_keys()}
    if unknown:
        raise ScheduleError(
            f"prices name {sorted(unknown)[:3]}, which are neither kinds nor paths of sites; the "
            f"kinds are {sorted({site.kind for site in sites})}"
        )
    return np.array([_price(prices, site) for site in sites])


def _price(prices: Mapping[str, float], site: Site) -> float:
    found = next((prices[key] for key in site.row_keys() if key in prices), None)
    if found is None or not 0.0 < found < math.inf:
        raise ScheduleError(
            f"prices are positive numbers by kind or path; for {site.path!r} there is {found}"
        )
    return float(found)
