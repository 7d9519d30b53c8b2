"""Budget-optimal schedules of sites: dynamic programming on predicted effects.

The effect of filling site s at evaluation i is predicted as u[i] w[s, i] r, with r the root mean
square that the fill leaves of the site's output (from calibrated inner products), w the site's
influence on the denoiser's output, and u the effect of that on the final sample.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, linear, residual, reuse, rounded
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.optimize.programme import at_most_rows, minimax, within_budget
from smoothcache_core.schedule.limits import Limits
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Fill, Schedule
from smoothcache_core.sources.kind import MakeSchedule, SourceKind, check_compute, fits
from smoothcache_core.sources.prediction import (
    SMALLEST,
    Filled,
    grams_of,
    lacks_sensitivities,
    mean_products,
    sensitivity,
    with_prediction,
)

Per = Literal["site", "kind", "evaluation"]


Objective = Literal["sum", "squares", "minimax", "relative"]


def plan_sites(
    calibration: Calibration,
    *,
    compute: float,
    fill: FillRule | None = None,
    per: Per = "site",
    objective: Objective = "sum",
    weights: Mapping[str, float] | None = None,
    limits: Limits | None = None,
) -> Schedule:
    """Return the schedule of sites with the least predicted effect within a budget.

    Args:
        calibration: Measured with sensitivities.
        compute: MACs over those of the plain run, in (0, 1].
        fill: How skipped outputs are made; two calibrated terms if not given.
        per: What shares a row: nothing, the sites of a kind, or all sites.
        objective: What is minimised over sites and evaluations: the `"sum"` of effects, the sum of
            their `"squares"`, the largest (`"minimax"`), or the sum of `"relative"` errors, which
            knows nothing of the final sample.
        weights: Price of computing once, by kind or path (measured seconds, say); MACs if None.
        limits: What must be kept to.

    Raises:
        ScheduleError: The calibration lacks what is needed, a setting is wrong, or the budget is
            out of reach.
    """
    rule, limits = fill or linear(2), limits or Limits()
    _check(compute, per, objective, limits)
    problem = _Problem(calibration, rule, per, objective, limits)
    budget = problem.budget(compute, weights)
    try:
        rows = problem.solve(budget)
    except ScheduleError as error:
        raise ScheduleError(f"compute {compute:g} cannot be planned for sites: {error}") from error
    return problem.schedule(rows, compute)


class _Problem:
    """One planning problem: effects of groups of sites, and their prices."""

    def __init__(
        self,
        calibration: Calibration,
        rule: FillRule,
        per: Per,
        objective: Objective,
        limits: Limits,
    ) -> None:
        self._calibration = calibration
        self._rule = rule
        self._per = per
        self._objective: Objective = objective
        self._limits = limits
        self._lags = _lags(calibration, rule, limits)
        self._products = mean_products(calibration)
        self._groups = _groups(calibration.sites, per)
        self._effects = self._site_effects()
        self._pinned = _pinned(calibration.evaluations, limits)

    # ------------------------------------------------------------------ effects

    def _site_effects(self) -> Array:
        """Return the effect of every fill, (sites, E, A, A + 2), see `programme.py`."""
        sites, evaluations, _ = self._products.shape
        lags = self._lags
        effects = np.full((sites, evaluations, lags, lags + 2), np.inf)
        for lag in range(1, lags + 1):
            for gap in range(lags + 2):
                where = self._reachable(lag, gap)
                if len(where):
                    effects[:, where, lag - 1, gap] = self._residuals(where, lag, gap)
        scale = self._scale()[:, :, None, None]
        with np.errstate(invalid="ignore"):
            effects = effects * scale
        return effects**2 if self._objective == "squares" else effects

    def _scale(self) -> Array:
        """Return what a site's residual is multiplied by, (sites, E)."""
        if self._objective == "relative":
            return 1.0 / np.sqrt(np.maximum(self._products[:, :, 0], SMALLEST))
        return sensitivity(self._calibration)

    def _reachable(self, lag: int, gap: int) -> NDArray[np.int64]:
        evaluations = self._products.shape[1]
        if gap == 0:
            return np.array([lag]) if lag < evaluations else np.array([], dtype=np.int64)
        return np.arange(lag + gap, evaluations)

    def _residuals(self, where: NDArray[np.int64], lag: int, gap: int) -> Array:
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

    def budget(self, compute: float, weights: Mapping[str, float] | None) -> float:
        """Return what the sites may spend, and set their prices."""
        cost = self._calibration.cost
        evaluations = self._calibration.evaluations
        if weights is None:
            free = [site.path for site in cost.sites if site.macs <= 0]
            if free:
                raise ScheduleError(f"{free[0]!r} costs no MACs; give weights, seconds for example")
            prices = np.array([float(site.macs) for site in cost.sites])
            outside = cost.total - prices.sum()
            budget = compute * cost.total * evaluations - outside * evaluations
        else:
            prices = _prices(weights, self._calibration.sites)
            budget = compute * prices.sum() * evaluations
        self._prices = np.array([prices[members].sum() for members in self._groups.values()])
        return float(budget)

    def solve(self, budget: float) -> NDArray[np.bool_]:
        """Return the rows of the groups, (groups, E)."""
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

    def _within_memory(self, pinned: NDArray[np.bool_], cap: int) -> NDArray[np.bool_]:
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

    def schedule(self, rows: NDArray[np.bool_], compute: float) -> Schedule:
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
        schedule = Schedule(
            evaluations=calibration.evaluations,
            rows={key: tuple(int(v) for v in row) for key, row in named.items()},
            fills=fills,
            source=Provenance(name="planned", settings=settings, seeds=calibration.seeds),
            fingerprint=calibration.fingerprint,
            cost=calibration.cost,
        )
        return with_prediction(calibration, schedule)

    def _fills(self, rows: NDArray[np.bool_]) -> dict[str, Fill]:
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

    def _histories(self, row: NDArray[np.bool_]) -> Iterator[tuple[int, list[int]]]:
        """Yield what is filled, and the lags of its terms: as were calibrated, at most 3."""
        for evaluation in np.flatnonzero(~row).tolist():
            done = np.flatnonzero(row[:evaluation])[::-1][: self._rule.terms]
            history = [evaluation - int(e) for e in done]
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


def _pinned(evaluations: int, limits: Limits) -> NDArray[np.bool_]:
    limits.check(evaluations)
    pinned = np.zeros(evaluations, dtype=np.bool_)
    pinned[list(limits.computed)] = True
    return pinned


def _check(compute: float, per: str, objective: str, limits: Limits) -> None:
    check_compute(compute)
    if per not in get_args(Per):
        raise ScheduleError(f"per is one of {list(get_args(Per))}, got {per!r}")
    if objective not in get_args(Objective):
        raise ScheduleError(f"objective is one of {list(get_args(Objective))}, got {objective!r}")
    if objective == "minimax" and limits.max_rows is not None:
        raise ScheduleError("max_rows cannot be kept with the objective 'minimax'; take another")


def _prices(weights: Mapping[str, float], sites: Sequence[Site]) -> Array:
    """Return the price of every site."""
    unknown = set(weights) - {key for site in sites for key in site.row_keys()}
    if unknown:
        raise ScheduleError(
            f"weights name {sorted(unknown)[:3]}, which are neither kinds nor paths of sites; the "
            f"kinds are {sorted({site.kind for site in sites})}"
        )
    return np.array([_price(weights, site) for site in sites])


def _price(weights: Mapping[str, float], site: Site) -> float:
    found = next((weights[key] for key in site.row_keys() if key in weights), None)
    if found is None or not 0.0 < found < math.inf:
        raise ScheduleError(
            f"weights are positive numbers by kind or path; for {site.path!r} there is {found}"
        )
    return float(found)


# ---------------------------------------------------------------------------- for the dial


_CAPPED = (linear(3), linear(2), reuse())
"""Rules to compare where memory is capped; without a cap no rule leaves less than the first."""


def _begin(
    calibration: Calibration, limits: Limits, fill: FillRule | None = None, *, per: Per
) -> MakeSchedule:
    rules = _CAPPED if fill is None else (fill,)

    def plan_by(rule: FillRule, limits: Limits, compute: float) -> Schedule:
        return plan_sites(calibration, compute=compute, fill=rule, per=per, limits=limits)

    def make(compute: float) -> Schedule:
        free = plan_by(rules[0], replace(limits, max_bytes=None), compute)
        if fits(free, limits):
            return free
        capped = [_or_none(plan_by, rule, limits, compute) for rule in rules]
        return min((one for one in capped if one and fits(one, limits)), key=_error, default=free)

    return make


def _or_none(
    make: Callable[[FillRule, Limits, float], Schedule],
    rule: FillRule,
    limits: Limits,
    compute: float,
) -> Schedule | None:
    try:
        return make(rule, limits, compute)
    except ScheduleError:
        return None


def _error(schedule: Schedule) -> float:
    assert schedule.prediction is not None
    return schedule.prediction.error


def _by(per: Per, title: str, *, compared: bool) -> SourceKind:
    def made(schedule: Schedule) -> bool:
        source = schedule.source
        return source.name == "planned" and source.settings.get("per") == per

    return SourceKind(
        name=per,
        title=title,
        plan=partial(_begin, per=per),
        needs=lacks_sensitivities,
        made=made,
        takes_fill=True,
        compared=compared,
    )


BY_SITE = _by("site", "parts of the model", compared=True)


BY_KIND = _by("kind", "kinds of parts of the model", compared=False)


BY_EVALUATION = _by("evaluation", "all parts of the model at once", compared=False)
